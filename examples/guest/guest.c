/* A guest that opens the channel of its NIC, from docs/attach.md and VMBus alone.
 *
 *	cc -o guest guest.c
 *	./guest SOCKET [FAULT]
 *
 * It attaches to the host at SOCKET, connects to VMBus, takes the first offer, makes
 * the pages of two rings known, opens the channel and closes it again. That is where a
 * netvsc driver begins with NVSP. With FAULT it makes one mistake on purpose, for the
 * host to name the rule that it breaks:
 *
 *	gpadl-list     a page list that is shorter than it says
 *	gpadl-memory   an address where a page frame number should be
 *	open-offset    the offset of the second ring in bytes, where it should be in pages
 *	target-vp      interrupts for a processor that there is not
 *
 * It exits with 0 if the channel was opened, 1 if something else is wrong, and 3 if
 * the host refused. Messages of VMBus are built as Linux include/linux/hyperv.h has
 * them. The machine is little-endian, as Hyper-V's are.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PAGE = 4096, WAIT_MS = 5000 };

/* Our memory: one region, at an address of our choice. */
static const uint64_t gpa = 0x500000000;
enum { SIGNALS, MESSAGES, EVENTS, UP, DOWN = UP + 4, PAGES = DOWN + 4 };
enum { RING_PAGES = 4 }; /* of each ring: a header page and three of data */
static uint8_t *memory;

static int host;                 /* the socket */
static int to_host, to_us;       /* doorbells */
static const char *fault = "";   /* the mistake to make */

static void die(const char *why)
{
	fprintf(stderr, "guest: %s\n", why);
	exit(1);
}

static void refused(const char *what, uint32_t status)
{
	fprintf(stderr, "guest: %s: the host refuses with %#x\n", what, status);
	exit(3);
}

static int making(const char *mistake) { return strcmp(fault, mistake) == 0; }

/* --- docs/attach.md --- */

enum { HELLO = 1, REPLY, POST };

struct hello {
	uint32_t type, id;
	char magic[8];
	uint32_t version, vps;
	uint64_t signal_page;
	uint16_t regions, name_len;
	uint32_t options_len;
	uint64_t message_page, event_page; /* of the one VP */
	uint64_t region_gpa, region_size, region_offset;
	char name[1];
} __attribute__((packed));

struct reply {
	uint32_t type, id, status;
	uint16_t version, text_len;
	char text[1024];
} __attribute__((packed));

/* reply_to reads the answer to a record, and the descriptors that come with it. */
static void reply_to(uint32_t id, int *fds, int want)
{
	static struct reply r;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov = {&r, sizeof r};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(host, &m, MSG_CMSG_CLOEXEC);
	if (n < 16 || r.type != REPLY || r.id != id)
		die("the host has gone, or its record is none for us");
	if (r.status) {
		fprintf(stderr, "guest: status %u: %.*s\n", r.status, r.text_len, r.text);
		exit(1);
	}
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (!want)
		return;
	if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(want * sizeof(int)))
		die("the doorbells are missing");
	memcpy(fds, CMSG_DATA(c), want * sizeof(int));
}

static void attach(const char *path)
{
	int fd = memfd_create("guest", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, PAGES * PAGE) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK))
		die("cannot make memory");
	memory = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		die("cannot map memory");

	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof a.sun_path)
		die("the path of the socket is too long");
	strcpy(a.sun_path, path);
	host = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (connect(host, (struct sockaddr *)&a, sizeof a))
		die("no host listens there");

	struct hello h = {
		.type = HELLO, .id = 1, .magic = {'H', 'V', 'A', 'T', 'T', 'A', 'C', 'H'}, .version = 1, .vps = 1,
		.signal_page = gpa + SIGNALS * PAGE, .regions = 1, .name_len = 1,
		.message_page = gpa + MESSAGES * PAGE, .event_page = gpa + EVENTS * PAGE,
		.region_gpa = gpa, .region_size = PAGES * PAGE, .region_offset = 0, .name = {'c'},
	};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {&h, sizeof h};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	if (sendmsg(host, &m, 0) != sizeof h)
		die("cannot send HELLO");
	int bells[2];
	reply_to(1, bells, 2);
	to_host = bells[0];
	to_us = bells[1];
}

/* post is HvCallPostMessage. */
static void post(uint32_t connection, const void *payload, size_t n)
{
	struct {
		uint32_t type, id, connection, message_type;
		uint8_t payload[240];
	} p = {POST, 2, connection, 1, {0}};
	memcpy(p.payload, payload, n);
	if (send(host, &p, 16 + n, 0) != (ssize_t)(16 + n))
		die("cannot post");
	reply_to(2, 0, 0);
}

/* The message slot of VMBus, SINT 2. */
struct slot {
	_Atomic uint32_t type;
	uint8_t size;
	_Atomic uint8_t flags;
	uint16_t reserved;
	uint64_t sender;
	uint8_t payload[240];
};

/* await waits for a message of VMBus of one type; others that come first are none
 * that this guest has a use for. */
static void await(uint32_t type, void *message, size_t n)
{
	struct slot *s = (struct slot *)(memory + MESSAGES * PAGE + 512);
	uint8_t got[240];
	do {
		while (atomic_load(&s->type) == 0) {
			struct pollfd p[2] = {{.fd = to_us, .events = POLLIN}, {.fd = host, .events = POLLIN}};
			char rung;
			if (poll(p, 2, WAIT_MS) <= 0 || p[1].revents)
				die("the host does not answer");
			(void)!read(to_us, &rung, 1);
		}
		memcpy(got, s->payload, sizeof got);
		atomic_store(&s->type, 0); /* sequentially consistent: a full barrier */
		atomic_thread_fence(memory_order_seq_cst);
		if (atomic_load(&s->flags) & 1)
			(void)!send(to_host, "", 1, MSG_DONTWAIT); /* End Of Message */
	} while (memcmp(got, &type, sizeof type) != 0);
	memcpy(message, got, n);
}

/* --- VMBus, as Linux include/linux/hyperv.h has it --- */

enum {
	OFFERCHANNEL = 1, REQUESTOFFERS = 3, OPENCHANNEL = 5, OPENCHANNEL_RESULT = 6, CLOSECHANNEL = 7,
	GPADL_HEADER = 8, GPADL_CREATED = 10, GPADL_TEARDOWN = 11, GPADL_TORNDOWN = 12,
	INITIATE_CONTACT = 14, VERSION_RESPONSE = 15, UNLOAD = 16, UNLOAD_RESPONSE = 17,
};

/* Version 5.3 is asked for on connection 4; the answer names the one to go on with. */
static uint32_t contact(void)
{
	struct {
		uint32_t type, zero, version, target_vp;
		uint8_t sint, vtl, pad[6];
		uint64_t monitor[2];
	} m = {.type = INITIATE_CONTACT, .version = 0x50003, .sint = 2};
	struct {
		uint32_t type, zero;
		uint8_t supported, state, pad[2];
		uint32_t connection;
	} r;
	post(4, &m, sizeof m);
	await(VERSION_RESPONSE, &r, sizeof r);
	if (!r.supported || r.state)
		refused("VMBus 5.3", r.state);
	return r.connection;
}

int main(int argc, char **argv)
{
	if (argc < 2 || argc > 3)
		die("want SOCKET [FAULT]");
	if (argc == 3)
		fault = argv[2];
	if (*fault && !making("gpadl-list") && !making("gpadl-memory") && !making("open-offset") && !making("target-vp"))
		die("FAULT is none of gpadl-list, gpadl-memory, open-offset and target-vp");
	attach(argv[1]);
	uint32_t connection = contact();

	uint32_t request[2] = {REQUESTOFFERS};
	post(connection, request, sizeof request);
	uint8_t offer[196];
	await(OFFERCHANNEL, offer, sizeof offer);
	uint32_t relid;
	memcpy(&relid, offer + 184, sizeof relid);

	/* Both rings in one GPADL, upstream first. Each has a header page, whose word at
	 * 64 says that we go by the pending send size. */
	memory[UP * PAGE + 64] = memory[DOWN * PAGE + 64] = 1;
	struct {
		uint32_t type, zero, relid, gpadl;
		uint16_t range_buflen, rangecount;
		uint32_t byte_count, byte_offset;
		uint64_t pfn[2 * RING_PAGES];
	} __attribute__((packed)) header = {
		GPADL_HEADER, 0, relid, 1, 8 + 8 * 2 * RING_PAGES, 1, 2 * RING_PAGES * PAGE, 0, {0},
	};
	for (int i = 0; i < 2 * RING_PAGES; i++)
		header.pfn[i] = gpa / PAGE + UP + i;
	if (making("gpadl-list"))
		header.range_buflen -= 8;
	if (making("gpadl-memory"))
		header.pfn[0] *= PAGE;
	post(connection, &header, sizeof header);
	uint32_t created[5];
	await(GPADL_CREATED, created, sizeof created);
	if (created[4])
		refused("GPADL", created[4]);

	struct {
		uint32_t type, zero, relid, open_id, gpadl, target_vp, down_offset;
		uint8_t user_data[120];
	} open = {OPENCHANNEL, 0, relid, 1, 1, 0, RING_PAGES, {0}};
	if (making("open-offset"))
		open.down_offset *= PAGE;
	if (making("target-vp"))
		open.target_vp = 7;
	post(connection, &open, sizeof open);
	uint32_t result[5];
	await(OPENCHANNEL_RESULT, result, sizeof result);
	if (result[4])
		refused("OPENCHANNEL", result[4]);
	printf("channel %u is open\n", relid);
	fflush(stdout);

	/* And all of it back. A driver goes on with NVSP here, in packets of the ring. */
	uint32_t close_it[3] = {CLOSECHANNEL, 0, relid};
	post(connection, close_it, sizeof close_it);
	uint32_t teardown[4] = {GPADL_TEARDOWN, 0, relid, 1}, torndown[3];
	post(connection, teardown, sizeof teardown);
	await(GPADL_TORNDOWN, torndown, sizeof torndown);
	uint32_t unload[2] = {UNLOAD}, unloaded[2];
	post(connection, unload, sizeof unload);
	await(UNLOAD_RESPONSE, unloaded, sizeof unloaded);
	return 0;
}
