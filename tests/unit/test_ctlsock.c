/* SPDX-License-Identifier: BSD-2-Clause
 * Control sockets: proto/ctlsock.h. */
#include "config.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "proto/ctlsock.h"
#include "proto/err.h"

static char dir[256];
static int dirfd_, lfd;

static void listen_here(void)
{
	unit_scratch(dir);
	dirfd_ = open(dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(dirfd_, 0);
	lfd = ctl_listen(dirfd_, "x.sock");
	ck_assert_int_ge(lfd, 0);
}

static void done(void)
{
	close(lfd);
	close(dirfd_);
	unit_remove(dir);
}

static void pair(int fd[2])
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd), 0);
}

/* A server of one call that replies with this text. */
struct once {
	int fd;
	const char *reply;
	json_t *got;
	pthread_t thread;
};

static void *once_main(void *arg)
{
	struct once *o = arg;

	if (ctl_recv(o->fd, &o->got, NULL, 5000) == 0 && o->reply != NULL)
		send(o->fd, o->reply, strlen(o->reply), MSG_NOSIGNAL);
	close(o->fd);
	return NULL;
}

static int call(struct once *o, const char *reply, const json_t *args, json_t **out)
{
	int fd[2], r;

	pair(fd);
	memset(o, 0, sizeof(*o));
	o->fd = fd[1];
	o->reply = reply;
	ck_assert_int_eq(pthread_create(&o->thread, NULL, once_main, o), 0);
	r = ctl_call(fd[0], "status", args, out, NULL, 5000);
	pthread_join(o->thread, NULL);
	close(fd[0]);
	return r;
}

START_TEST(an_object_passes_through_a_socket_in_a_directory)
{
	json_t *obj = json_pack("{s:s,s:i}", "path", "d\xc3\xa4ta", "n", 7), *got;
	int c, s;

	listen_here();
	c = ctl_connect(dirfd_, "x.sock");
	ck_assert_int_ge(c, 0);
	s = accept(lfd, NULL, NULL);
	ck_assert_int_eq(ctl_send(c, obj, NULL, 0), 0);
	ck_assert_int_eq(ctl_recv(s, &got, NULL, 5000), 0);
	ck_assert(json_equal(obj, got));
	json_decref(obj);
	json_decref(got);
	close(c);
	close(s);
	done();
}
END_TEST

START_TEST(the_socket_is_its_owner_s_alone)
{
	struct stat st;

	umask(0);
	listen_here();
	ck_assert_int_eq(fstatat(dirfd_, "x.sock", &st, 0), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	done();
}
END_TEST

START_TEST(directories_deeper_than_sun_path_work)
{
	char deep[400];
	int fd, l, c;

	listen_here();
	snprintf(deep, sizeof(deep), "%s/", dir);
	memset(deep + strlen(deep), 'd', 200);
	deep[strlen(dir) + 1 + 200] = '\0';
	ck_assert_int_eq(mkdir(deep, 0700), 0);
	fd = open(deep, O_RDONLY | O_DIRECTORY);
	l = ctl_listen(fd, "mount.sock");
	ck_assert_int_ge(l, 0);
	c = ctl_connect(fd, "mount.sock");
	ck_assert_int_ge(c, 0);
	close(c);
	close(l);
	close(fd);
	done();
}
END_TEST

START_TEST(an_old_socket_is_replaced)
{
	int c;

	listen_here();
	close(lfd);
	ck_assert_int_eq(ctl_connect(dirfd_, "x.sock"), -ECONNREFUSED);
	lfd = ctl_listen(dirfd_, "x.sock");
	ck_assert_int_ge(lfd, 0);
	c = ctl_connect(dirfd_, "x.sock");
	ck_assert_int_ge(c, 0);
	close(c);
	done();
}
END_TEST

START_TEST(nobody_there_is_enoent)
{
	listen_here();
	ck_assert_int_eq(ctl_connect(dirfd_, "y.sock"), -ENOENT);
	done();
}
END_TEST

START_TEST(descriptors_travel_with_an_object)
{
	int fd[2], p[2], fds[CTL_FDS_MAX];
	json_t *obj = json_object(), *got;
	char ch = 0;

	pair(fd);
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(ctl_send(fd[0], obj, p, 2), 0);
	ck_assert_int_eq(ctl_recv(fd[1], &got, fds, 5000), 0);
	ck_assert_int_ge(fds[0], 0);
	ck_assert_int_ge(fds[1], 0);
	ck_assert_int_eq(fds[2], -1);
	ck_assert_int_ne(fcntl(fds[0], F_GETFD) & FD_CLOEXEC, 0);
	ck_assert_int_eq(write(fds[1], "x", 1), 1);
	ck_assert_int_eq(read(p[0], &ch, 1), 1);
	ck_assert_int_eq(ch, 'x');
	json_decref(obj);
	json_decref(got);
}
END_TEST

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

START_TEST(descriptors_nobody_wants_are_closed)
{
	json_t *obj = json_object(), *got;
	int fd[2], before;

	pair(fd);
	before = count_fds();
	ck_assert_int_eq(ctl_send(fd[0], obj, fd, 2), 0);
	ck_assert_int_eq(ctl_recv(fd[1], &got, NULL, 5000), 0);
	ck_assert_int_eq(count_fds(), before);
	json_decref(obj);
	json_decref(got);
}
END_TEST

START_TEST(what_else_stands_beside_an_object_is_passed_over)
{
	json_t *obj = json_object(), *got;
	int fd[2], fds[CTL_FDS_MAX], on = 1;

	pair(fd);
	ck_assert_int_eq(setsockopt(fd[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	ck_assert_int_eq(ctl_send(fd[0], obj, NULL, 0), 0);
	ck_assert_int_eq(ctl_recv(fd[1], &got, fds, 5000), 0);
	ck_assert_int_eq(fds[0], -1);
	json_decref(obj);
	json_decref(got);
}
END_TEST

START_TEST(descriptors_beside_garbage_are_closed)
{
	int fd[2], fds[CTL_FDS_MAX], before;
	json_t *array = json_array(), *got;

	pair(fd);
	before = count_fds();
	ck_assert_int_eq(ctl_send(fd[0], array, fd, 2), 0);
	ck_assert_int_eq(ctl_recv(fd[1], &got, fds, 5000), E_PROTO);
	ck_assert_int_eq(fds[0], -1);
	ck_assert_int_eq(count_fds(), before);
	json_decref(array);
}
END_TEST

START_TEST(what_is_no_object_is_refused)
{
	static const char *const bad[] = {"{", "[]", "1", "{\"a\":1,\"a\":2}", "{} x", "\xff"};
	json_t *got;
	int fd[2];

	pair(fd);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_int_gt(send(fd[0], bad[i], strlen(bad[i]), 0), 0);
		ck_assert_int_eq(ctl_recv(fd[1], &got, NULL, 5000), E_PROTO);
		ck_assert_ptr_null(got);
	}
}
END_TEST

START_TEST(an_object_above_the_packet_size_is_not_sent)
{
	char *text = calloc(1, CTL_PACKET_MAX + 1);
	json_t *obj;
	int fd[2];

	pair(fd);
	memset(text, 'a', CTL_PACKET_MAX);
	obj = json_pack("{s:s}", "text", text);
	ck_assert_int_eq(ctl_send(fd[0], obj, NULL, 0), E_LIMIT);
	json_decref(obj);
	free(text);
}
END_TEST

START_TEST(the_largest_packet_passes)
{
	char *text = calloc(1, CTL_PACKET_MAX);
	json_t *obj, *got;
	int fd[2];

	pair(fd);
	memset(text, 'a', CTL_PACKET_MAX - strlen("{\"t\":\"\"}"));
	obj = json_pack("{s:s}", "t", text);
	ck_assert_int_eq(ctl_send(fd[0], obj, NULL, 0), 0);
	ck_assert_int_eq(ctl_recv(fd[1], &got, NULL, 5000), 0);
	ck_assert(json_equal(obj, got));
	json_decref(obj);
	json_decref(got);
	free(text);
}
END_TEST

START_TEST(a_longer_packet_is_refused)
{
	char *text = malloc(CTL_PACKET_MAX + 10);
	json_t *got;
	int fd[2];

	pair(fd);
	memset(text, ' ', CTL_PACKET_MAX + 10);
	memcpy(text, "{}", 2);
	ck_assert_int_gt(send(fd[0], text, CTL_PACKET_MAX + 10, 0), 0);
	ck_assert_int_eq(ctl_recv(fd[1], &got, NULL, 5000), E_PROTO);
	free(text);
}
END_TEST

START_TEST(receiving_has_a_deadline)
{
	json_t *got;
	int fd[2];

	pair(fd);
	ck_assert_int_eq(ctl_recv(fd[1], &got, NULL, 50), E_TIMEOUT);
}
END_TEST

START_TEST(a_closed_peer_is_said_to_be_closed)
{
	json_t *got;
	int fd[2];

	pair(fd);
	close(fd[0]);
	ck_assert_int_eq(ctl_recv(fd[1], &got, NULL, 5000), E_CLOSED);
	ck_assert_int_eq(ctl_call(fd[1], "x", NULL, &got, NULL, 5000), E_CLOSED);
}
END_TEST

START_TEST(a_call_sends_op_and_arguments)
{
	json_t *args = json_pack("{s:i}", "seq", 5), *want = json_pack("{s:s,s:i}", "op", "status", "seq", 5), *reply;
	struct once o;

	ck_assert_int_eq(call(&o, "{\"ok\":true,\"pid\":9}", args, &reply), 0);
	ck_assert(json_equal(o.got, want));
	ck_assert_int_eq(json_integer_value(json_object_get(reply, "pid")), 9);
	ck_assert_uint_eq(json_object_size(args), 1);
	json_decref(reply);
	json_decref(args);
	json_decref(want);
	json_decref(o.got);
}
END_TEST

START_TEST(a_refused_call_holds_the_error)
{
	struct once o;
	json_t *reply;

	ck_assert_int_eq(call(&o, "{\"ok\":false,\"error\":\"busy\"}", NULL, &reply), E_REFUSED);
	ck_assert_str_eq(json_string_value(json_object_get(reply, "error")), "busy");
	json_decref(reply);
	json_decref(o.got);
}
END_TEST

START_TEST(a_reply_that_says_neither_is_refused)
{
	struct once o;
	json_t *reply;

	ck_assert_int_eq(call(&o, "{\"pid\":9}", NULL, &reply), E_PROTO);
	ck_assert_ptr_null(reply);
	json_decref(o.got);
}
END_TEST

START_TEST(a_server_that_goes_away_ends_the_call)
{
	struct once o;
	json_t *reply;

	ck_assert_int_eq(call(&o, NULL, NULL, &reply), E_CLOSED);
	json_decref(o.got);
}
END_TEST

UNIT_MAIN("ctlsock", an_object_passes_through_a_socket_in_a_directory, the_socket_is_its_owner_s_alone,
    directories_deeper_than_sun_path_work, an_old_socket_is_replaced, nobody_there_is_enoent,
    descriptors_travel_with_an_object, descriptors_nobody_wants_are_closed,
    what_else_stands_beside_an_object_is_passed_over, descriptors_beside_garbage_are_closed,
    what_is_no_object_is_refused, an_object_above_the_packet_size_is_not_sent, the_largest_packet_passes,
    a_longer_packet_is_refused, receiving_has_a_deadline, a_closed_peer_is_said_to_be_closed,
    a_call_sends_op_and_arguments, a_refused_call_holds_the_error, a_reply_that_says_neither_is_refused,
    a_server_that_goes_away_ends_the_call)
