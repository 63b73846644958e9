/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"
#include "proto/err.h"

#include <string.h>

static const char *const texts[] = {
	[-(E_TORN - E_FIRST)] = "the record ends too early",
	[-(E_CHECKSUM - E_FIRST)] = "checksum differs: the bytes are not what was written",
	[-(E_GAP - E_FIRST)] = "records are missing",
	[-(E_VERSION - E_FIRST)] = "written by another version of tandemfs",
	[-(E_DIVERGED - E_FIRST)] = "same journal, other history",
	[-(E_FOREIGN - E_FIRST)] = "belongs to another source",
	[-(E_LIMIT - E_FIRST)] = "above a size limit",
	[-(E_PROTO - E_FIRST)] = "the peer broke the protocol",
	[-(E_CLOSED - E_FIRST)] = "the peer closed the connection",
	[-(E_AUTH - E_FIRST)] = "authentication failed",
	[-(E_TIMEOUT - E_FIRST)] = "timed out",
	[-(E_CONF - E_FIRST)] = "the configuration is wrong",
	[-(E_COLLAPSED - E_FIRST)] = "the journal was collapsed",
	[-(E_REFUSED - E_FIRST)] = "refused by the peer",
	[-(E_GONE - E_FIRST)] = "the file does not exist any more",
	[-(E_CHANGED - E_FIRST)] = "the file changed while it was read",
};

const char *err_text(int err)
{
	if (err < E_FIRST && err > E_LAST)
		return texts[-(err - E_FIRST)];
	if (err >= E_FIRST && err < 0) {
		const char *s = strerrordesc_np(-err);
		if (s)
			return s;
	}
	return err ? "unknown error" : "no error";
}
