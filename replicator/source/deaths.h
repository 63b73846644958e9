/* SPDX-License-Identifier: BSD-2-Clause
 * Which inodes lose their last name in a part of the journal. */
#ifndef TANDEM_DEATHS_H
#define TANDEM_DEATHS_H

#include <stdbool.h>
#include <stdint.h>

struct deaths;

enum death {
	DEATH_NONE = 0,
	DEATH_COMES = 1,
	DEATH_UNKNOWN = 2 /* the records could not be read, or there were too many */
};

/* Read the records (from, to] of the journal directory jdirfd. Returns 0 or -ENOMEM; what cannot be read is unknown. */
int deaths_read(struct deaths **out, int jdirfd, uint64_t from, uint64_t to);
void deaths_free(struct deaths *d);
/* Say whether a record behind seq ends the inode that has the number ino at seq. */
enum death deaths_of(const struct deaths *d, uint64_t ino, uint64_t seq);

#endif
