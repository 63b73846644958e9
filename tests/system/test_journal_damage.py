# SPDX-License-Identifier: BSD-2-Clause
"""A journal that is damaged while records wait in it: it is said, the bad part is kept aside, and source and standby become identical.

TANDEM_DAMAGES=N runs N rounds more, each with a random kind of damage at a random place."""
import fcntl
import os
import random
import re
import shutil
import struct

import pytest

from lib.wait import wait_until
from lib.workload import Workload

MORE = int(os.environ.get("TANDEM_DAMAGES", "0"))
HEADER = 64  # bytes of a segment before its first record
CREATE = 1  # type of a record
LIMIT = {"journal limit": "4M"}  # for segments of a megabyte


class Journal:
    """The journal of a source that does not run."""

    def __init__(self, source):
        self.dir = source.state / source.name / "journal"

    def segments(self):
        return sorted(self.dir.glob("*.seg"))

    def sealed(self):
        return self.segments()[0]

    def open(self):
        return self.segments()[-1]

    def quarantined(self):
        return len(list((self.dir / "quarantine").glob("*"))) if (self.dir / "quarantine").exists() else 0

    def flip(self, path, at):
        with open(path, "r+b") as f:
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ 0x5A]))

    def records(self, path, type_=None):
        """Offsets and lengths of a segment's records, of those that follow one of the type if given."""
        data, at, found, last = path.read_bytes(), HEADER, [], None
        while data[at:at + 4] == b"TJR1":
            length, = struct.unpack_from("<I", data, at + 8)
            if type_ is None or last == type_:
                found.append((at, length))
            last, = struct.unpack_from("<H", data, at + 4)
            at += length
        return found


# Each takes the journal and a random number generator; all of it is damage that recovery must notice.

def flip_in_a_sealed_segment(j, rnd):
    at, length = rnd.choice(j.records(j.sealed()))
    j.flip(j.sealed(), at + rnd.randrange(length))


def flip_in_the_open_segment(j, rnd):
    at, length = rnd.choice(j.records(j.open()))
    j.flip(j.open(), at + rnd.randrange(length))


def flip_in_a_header(j, rnd):
    j.flip(rnd.choice(j.segments()), rnd.choice([n for n in range(HEADER) if n != 7]))


def sealed_segment_missing(j, rnd):
    j.segments()[1 if len(j.segments()) > 2 else 0].unlink()


def open_segment_missing(j, rnd):
    j.open().unlink()


def segments_swapped(j, rnd):
    a, b = j.sealed(), j.open()
    a.rename(j.dir / "x")
    b.rename(a)
    (j.dir / "x").rename(b)


def segment_truncated(j, rnd):
    path = rnd.choice(j.segments())
    os.truncate(path, rnd.randrange(sum(j.records(path)[-1])))


def segment_zeroed(j, rnd):
    path = rnd.choice(j.segments())
    with open(path, "r+b") as f:
        f.seek(rnd.randrange(max(j.records(path)[-1][0], 4096)) // 4096 * 4096)
        f.write(bytes(4096))


def all_segments_missing(j, rnd):
    for path in j.segments():
        path.unlink()


def journal_of_another_host(j, rnd):
    """All of it; j.other is the directory of another mirror's journal."""
    shutil.rmtree(j.dir)
    shutil.copytree(j.other, j.dir)


def journal_missing(j, rnd):
    shutil.rmtree(j.dir)


# What is said of it: by the mount, or, when the oldest segment is gone as if it had been reclaimed, by the replicator.
SAID = re.compile("the journal is damaged|the records the standby needs are not in the journal any more")

DAMAGES = [flip_in_a_sealed_segment, flip_in_the_open_segment, flip_in_a_header, sealed_segment_missing, open_segment_missing,
           segments_swapped, segment_truncated, segment_zeroed, all_segments_missing]
REPLACED = [journal_of_another_host, journal_missing]


def write(pair, seed):
    """Changes of all kinds, more than one segment of them."""
    (pair.dir / "load").mkdir(exist_ok=True)
    Workload(pair.dir / "load", seed=seed, ops=250).run()
    shutil.rmtree(pair.dir / ("d" * 240), ignore_errors=True)
    deep = pair.dir.joinpath(*["d" * 240] * 15)
    deep.mkdir(parents=True)
    for n in range(160):
        (deep / f"{n}").write_text(f"{seed}")  # two records, with a long path each


def wait_in_the_journal(pair, seed):
    """Leave records in the journal that the standby has not seen, and nobody running on the source."""
    pair.standby.stop()
    write(pair, seed)
    pair.source.perish()
    with open(pair.source.state / pair.source.name / "lock", "rb") as lock:  # threads of what was killed may still be ending
        fcntl.flock(lock, fcntl.LOCK_EX)


@pytest.fixture
def damaged(site, pair_with):
    """A function that damages the journal while records wait, starts all again, and compares."""
    pair = pair_with(source=LIMIT)

    def once(damage, seed):
        journal = Journal(pair.source)
        journal.other = site.dir / "other.journal"
        if damage is journal_of_another_host and not journal.other.exists():
            other = site.source([pair.standby.url()], name="other", **LIMIT).start()
            (other.dir / "theirs").write_text("x")
            other.stop()
            shutil.copytree(Journal(other).dir, journal.other)
        wait_in_the_journal(pair, seed)
        if len(journal.segments()) < 2:  # it reached its limit meanwhile, and became a comparison
            damage = all_segments_missing
        print(f"{damage.__name__}, seed {seed}")
        quarantined = journal.quarantined()
        damage(journal, random.Random(seed))
        kept = bool(journal.segments()) and damage in DAMAGES
        said = len(SAID.findall(pair.source.log()))
        pair.source.start()
        pair.standby.start()
        pair.same()
        if damage in DAMAGES:
            assert len(SAID.findall(pair.source.log())) > said
            assert journal.quarantined() > quarantined or not kept or damage in (sealed_segment_missing, open_segment_missing)
    return once


def test_damage_of_every_kind_is_compared(damaged):
    for number, damage in enumerate(DAMAGES + REPLACED):
        damaged(damage, 7000 + number)


@pytest.mark.skipif(not MORE, reason="TANDEM_DAMAGES is not set")
def test_damage_at_random_places_is_compared(damaged):
    for number in range(MORE):
        damaged(random.Random(number).choice(DAMAGES + REPLACED), 8000 + number)


def test_another_version_is_refused_and_nothing_changed(pair_with):
    """A segment of a later version: tandemfs does not start, says so, and goes on when it is put right."""
    pair = pair_with(source=LIMIT)
    wait_in_the_journal(pair, 1)
    journal = Journal(pair.source)
    journal.flip(journal.open(), 7)
    before = {p.name: p.read_bytes() for p in journal.segments()}
    pair.source.start(wait_mount=False)
    assert pair.source.wait_exit() != 0
    assert "version" in pair.source.log() and "nothing was changed" in pair.source.log()
    assert {p.name: p.read_bytes() for p in journal.segments()} == before
    journal.flip(journal.open(), 7)
    pair.source.start()
    pair.standby.start()
    pair.same()


def test_damage_under_a_running_replicator_is_compared(pair_with):
    """The records that wait for the standby are damaged while the mount and the replicator run."""
    pair = pair_with(source=LIMIT)
    pair.standby.stop()
    write(pair, 2)
    journal = Journal(pair.source)
    wait_until(lambda: len(journal.segments()) > 1, "segments")
    at, _ = journal.records(journal.sealed(), CREATE)[5]  # a CREATE waits for the record behind it
    journal.flip(journal.sealed(), at + 40)
    pair.standby.start()
    pair.same()
    assert "the journal is damaged: comparing everything" in pair.source.log()
