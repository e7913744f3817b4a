// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Outliving a host process.
 *
 * A real hypervisor does not come and go, so the drivers know nothing of that.  When
 * another host process takes over (LGV_OFF_HOST_LIFE changes), the shim
 *
 *  - plays the old host's last act: it rescinds every channel that the drivers
 *    still hold, and takes their answers,
 *  - tells the new host the SynIC registers of each VP, and posts again what
 *    hv_vmbus posted when it connected: INITIATE_CONTACT and REQUESTOFFERS.
 *
 * For the drivers a device went and another one came.  One thing can't be made good:
 * hv_netvsc waits for the completion of what it has sent, and if the old host was
 * killed with sends under way, or something was sent before the next host was there, it
 * waits for ever.
 */
#define pr_fmt(fmt) "lgv_shim: " fmt

#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/workqueue.h>
#include <asm/io.h>
#include "lgv_shim.h"

#define MAX_RELIDS	2048

/* VMBus messages that matter here, and where their fields are */
#define MSG_OFFER		1
#define MSG_RESCIND		2
#define MSG_REQUESTOFFERS	3
#define MSG_RELID_RELEASED	13
#define MSG_INITIATE_CONTACT	14
#define MSG_UNLOAD		16
#define MSG_BODY		8
#define OFFER_SUBCHANNEL	180
#define OFFER_RELID		184
#define CONTACT_TARGET_VP	12

/* the input of HvCallPostMessage, a message slot */
#define POST_PAYLOAD		16
#define POST_SIZE		256
#define SLOT			(2 * 256)	/* of SINT 2 */
#define SLOT_PAYLOAD		16

static const u32 msrs[] = {	/* in the order in which they are told */
	0x40000083 /* SIMP */, 0x40000082 /* SIEFP */, 0x40000092 /* SINT2 */, 0x40000080 /* SCONTROL */
};
#define SIMP 0

static u64 saved[LGV_MAX_VPS][ARRAY_SIZE(msrs)];
static u8 contact[POST_SIZE], request[POST_SIZE];
static bool connected, requested;
static bool cleaning;			/* the old host's channels are going */
static DECLARE_BITMAP(primaries, MAX_RELIDS);
static DECLARE_BITMAP(subs, MAX_RELIDS);
static u32 life;
static void *post_page;

static u32 host_life(void)
{
	return READ_ONCE(*(u32 *)(lgv_window + LGV_OFF_HOST_LIFE));
}

static void *slot_of(int vp)
{
	u64 simp = READ_ONCE(saved[vp][SIMP]);

	return simp & 1 ? __va(simp & PAGE_MASK) + SLOT : NULL;
}

void lgv_life_msr(int vp, u32 msr, u64 value)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(msrs); i++)
		if (msrs[i] == msr)
			WRITE_ONCE(saved[vp][i], value);
}

void lgv_life_slot(int vp)
{
	u8 *slot = slot_of(vp), *m = slot + SLOT_PAYLOAD;
	u32 relid;

	if (!slot || READ_ONCE(*(u32 *)slot) != 1 || *(u32 *)m != MSG_OFFER)
		return;
	relid = *(u32 *)(m + OFFER_RELID);
	if (relid < MAX_RELIDS)
		set_bit(relid, *(u16 *)(m + OFFER_SUBCHANNEL) ? subs : primaries);
}

bool lgv_life_message(u64 gpa)
{
	u8 *in = __va(gpa), *m = in + POST_PAYLOAD;
	u32 relid;

	switch (*(u32 *)m) {
	case MSG_INITIATE_CONTACT:
		memcpy(contact, in, POST_SIZE);
		connected = true;
		break;
	case MSG_REQUESTOFFERS:
		memcpy(request, in, POST_SIZE);
		requested = true;
		break;
	case MSG_UNLOAD:
		connected = requested = false;
		bitmap_zero(primaries, MAX_RELIDS);
		bitmap_zero(subs, MAX_RELIDS);
		break;
	case MSG_RELID_RELEASED:
		relid = *(u32 *)(m + MSG_BODY);
		if (relid < MAX_RELIDS) {
			clear_bit(relid, primaries);
			clear_bit(relid, subs);
		}
		break;
	}
	return READ_ONCE(cleaning);
}

/* a message of the host that is no more: false if nobody takes it */
static bool deliver(int vp, u32 type, u32 relid)
{
	u8 *slot = slot_of(vp);
	int i;

	if (!slot)
		return false;
	for (i = 0; READ_ONCE(*(u32 *)slot); i++) {
		if (i == 500)
			return false;
		lgv_interrupt(vp);
		msleep(10);
	}
	memset(slot + 4, 0, 252);
	slot[4] = MSG_BODY + 4;
	*(u32 *)(slot + SLOT_PAYLOAD) = type;
	*(u32 *)(slot + SLOT_PAYLOAD + MSG_BODY) = relid;
	smp_store_release((u32 *)slot, 1);
	lgv_interrupt(vp);
	return true;
}

static void rescind(unsigned long *relids, int vp)
{
	unsigned long relid;

	for_each_set_bit(relid, relids, MAX_RELIDS)
		if (!deliver(vp, MSG_RESCIND, relid))
			pr_err("nobody hears that channel %lu is gone\n", relid);
}

static bool held(void)
{
	return !bitmap_empty(primaries, MAX_RELIDS) || !bitmap_empty(subs, MAX_RELIDS);
}

static void tell_msrs(void *unused)
{
	int i, vp = smp_processor_id();

	for (i = 0; i < ARRAY_SIZE(msrs); i++)
		if (saved[vp][i])
			lgv_exit(LGV_KIND_WRMSR, msrs[i], saved[vp][i], 0, 0);
}

static void post_again(const u8 *in)
{
	int i;

	memcpy(post_page, in, POST_SIZE);
	for (i = 0; i < 100; i++) {
		u64 status = lgv_exit(LGV_KIND_HYPERCALL, HVCODE_POST_MESSAGE, __pa(post_page), 0, 5);

		if (!status)
			return;
		msleep(10);
	}
	pr_err("the new host does not take message %u\n", *(u32 *)(in + POST_PAYLOAD));
}

static void take_over(struct work_struct *unused)
{
	int i, vp, cpu;

	while (life != host_life()) {
		life = host_life();
		lgv_revive();
		if (!connected)
			continue;
		vp = *(u32 *)(contact + POST_PAYLOAD + CONTACT_TARGET_VP);
		if (vp >= num_possible_cpus())
			vp = 0;
		WRITE_ONCE(cleaning, true);
		/* what the old host had put on the rings is taken before: hv_netvsc can't
		 * complete it any more once the channel is rescinded, and waits until it has */
		for_each_online_cpu(cpu)
			lgv_interrupt(cpu);
		msleep(200);
		rescind(subs, vp);
		rescind(primaries, vp);
		for (i = 0; held() && i < 6000; i++)
			msleep(10);
		if (held())
			pr_err("the drivers keep channels of a host that is gone\n");
		WRITE_ONCE(cleaning, false);
		for_each_online_cpu(cpu)
			smp_call_function_single(cpu, tell_msrs, NULL, true);
		post_again(contact);
		if (requested)
			post_again(request);
		pr_info("host %u has taken over\n", life);
	}
}

static DECLARE_WORK(takeover, take_over);

void lgv_life_check(void)
{
	if (host_life() != READ_ONCE(life))
		schedule_work(&takeover);
}

void lgv_life_init(void)
{
	life = host_life();
	post_page = (void *)__get_free_page(GFP_KERNEL | __GFP_ZERO);
}
