/* SPDX-License-Identifier: GPL-2.0 OR MIT */
#ifndef LGV_SHIM_H
#define LGV_SHIM_H

#include <linux/types.h>
#include "lgv_abi.h"

#define HVCALL_CODE_MASK	0xffffULL
#define HVCODE_POST_MESSAGE	0x5c

/* lgv_main.c */
extern u8 *lgv_window;
u64 lgv_exit(u32 kind, u64 a0, u64 a1, u64 a2, u64 on_dead);
void lgv_revive(void);			/* exits may work again */
void lgv_interrupt(int vp);		/* runs hv_vmbus's handler on a VP */

/* lgv_life.c: what it takes to outlive a host process */
void lgv_life_init(void);
void lgv_life_check(void);		/* in each interrupt */
void lgv_life_msr(int vp, u32 msr, u64 value);
bool lgv_life_message(u64 gpa);		/* true: swallow it, the host is gone */
void lgv_life_slot(int vp);		/* looks at a VP's message slot */

#endif
