# SPDX-License-Identifier: BSD-2-Clause
"""C code in this directory as a library that a process preloads. Needs a C compiler."""
import pathlib
import shutil
import subprocess

import pytest


def preload(site, name, **environment):
    """Build name.c once per site and return the environment of a process that is to load it: LD_PRELOAD and what else is given."""
    cc = shutil.which("cc")
    if not cc:
        pytest.skip("no C compiler")
    library = site.dir / f"{name}.so"
    if not library.exists():
        code = pathlib.Path(__file__).with_name(f"{name}.c")
        subprocess.run([cc, "-shared", "-fPIC", "-O1", "-o", str(library), str(code), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), **environment}
