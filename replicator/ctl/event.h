/* SPDX-License-Identifier: BSD-2-Clause
 * How one journal record is shown: as a line, by a format, or as JSON. */
#ifndef TANDEM_CTL_EVENT_H
#define TANDEM_CTL_EVENT_H

#include <stdbool.h>
#include "proto/jrec.h"

/* The event of a record, upper case: CREATE, CLOSE_WRITE, RENAME ... Static text. */
const char *event_name(const struct jrec *r);
/* Print "TIME SEQ EVENT PATH [-> PATH2] DETAILS" and a newline. timefmt as strftime(3), NULL: ISO 8601 local
 * time with microseconds. */
void event_print_line(const struct jrec *r, const char *timefmt);
/* Print by a format with %-escapes. A format that uses %0 gets raw paths and no newline. */
void event_print_format(const struct jrec *r, const char *format, const char *timefmt);
/* Check a format. Returns the letter that means nothing ('%' for one at the end), or 0. */
char event_check_format(const char *format);
/* Print one JSON object and a newline. */
void event_print_json(const struct jrec *r);

#endif
