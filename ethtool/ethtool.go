// Package ethtool is what a person does to a NIC: the interface of a device that
// can be asked and set, and the command line and printed text of ethtool over it.
//
// The text is that of ethtool 6.1 where it speaks ioctl with the kernel, to the
// letter and with its exit statuses, but for `-L` without effect: there it is that
// of the releases before 5.7, which call it an error ("…, aborting", status 1).
package ethtool

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"hvnet/nic"
)

// Version is the ethtool release whose text is printed.
const Version = "6.1"

// A Device is a NIC as its user sees it. What a setting is refused with are the
// errors of package nic.
type Device interface {
	DriverInfo() nic.DriverInfo
	// Channels returns the open channels and how many there can be.
	Channels() nic.Channels
	// SetChannels makes n channels the NIC's. It has an effect, or an error and
	// none: nic.ErrInvalid for a number that cannot be.
	SetChannels(ctx context.Context, n int) error
	// Rings returns the receive and send sections.
	Rings() nic.Rings
	// SetRings makes the receive and send sections rx and tx, or as many as the
	// host grants instead. It has an effect, or an error and none: nic.ErrInvalid
	// for more than there can be.
	SetRings(ctx context.Context, rx, tx int) error
	// Stats returns the counters in the order in which they are shown.
	Stats() []nic.Stat
	// Features returns what is done for frames, as far as switches for it go.
	Features() nic.Features
	// SetFeatures switches some. What has become of it Features says: it is no
	// error if a wish is not granted, but nic.ErrInvalid if it is for what can never
	// be switched.
	SetFeatures(ctx context.Context, c nic.FeatureChange) error
	// LinkSettings returns speed and duplex, and whether frames can go.
	LinkSettings() nic.LinkSettings
	// SetLinkSettings changes speed, in Mbit/s, and duplex: nic.ErrInvalid for what
	// they cannot be.
	SetLinkSettings(ctx context.Context, mbps uint32, d nic.Duplex) error
	// MessageLevel returns what is logged, as the bits that Linux has for it.
	MessageLevel() uint32
	// SetMessageLevel changes it.
	SetMessageLevel(ctx context.Context, bits uint32) error
	// PermanentMAC returns the address that the NIC came with.
	PermanentMAC() nic.MAC
	// Registers returns the table for sending.
	Registers() nic.Registers
	// HashLevels returns what flows are told apart by when they are sent.
	HashLevels() nic.HashLevels
	// SetHashLevel changes it for one kind of flows. It has an effect, or an error
	// and none: nic.ErrNotSupported for a flow or a level that there is not.
	SetHashLevel(ctx context.Context, f nic.Flow, level nic.HashKind) error
	// RSS returns how the host spreads received frames.
	RSS() nic.RSS
	// SetRSS changes it. It has an effect, or an error and none: nic.ErrInvalid
	// for a table with channels that there are not or for a wrong size,
	// nic.ErrNotSupported if the host takes no table.
	SetRSS(ctx context.Context, c nic.RSSChange) error
}

// Exit statuses of commands whose failure has one of its own.
const (
	exitFailure      = 1
	exitKey          = 2
	exitRegisters    = 72
	exitEEPROM       = 74
	exitSettings     = 75
	exitSetPause     = 77
	exitPauseSame    = 78
	exitPauseRefused = 79
	exitCoalesce     = 82
	exitPHYTunable   = 87
	exitSubcommand   = 161
	exitPerQueue     = 242
	exitMinus        = 255
	exitDriverInfo   = 71
	exitRings        = 76
	exitRingsSame    = 80
	exitSetRings     = 81
	exitNoStats      = 94
	exitStatsStrings = 96
	exitStats        = 97
)

// maxName is the longest name of an interface (IFNAMSIZ-1 of Linux).
const maxName = 15

// A call is one invocation of a command.
type call struct {
	ctx    context.Context
	name   string   // of the interface
	args   []string // after the name
	lookup func(name string) (Device, error)

	stdout bytes.Buffer // shown at the end, as a pipe's reader sees it
	stderr io.Writer
}

// Run runs one ethtool command line, without the program's name, on the device that
// lookup finds by its interface's name, and returns the exit status. lookup's
// error is printed as the kernel's answer would be; nic.ErrNoDevice says that
// there is none of the name. ctx bounds the setting.
//
// As in a pipe to ethtool, errors are written before what goes to stdout.
func Run(ctx context.Context, args []string, lookup func(name string) (Device, error), stdout, stderr io.Writer) int {
	c := &call{ctx: ctx, lookup: lookup, stderr: stderr}
	exit := c.run(args)
	stdout.Write(c.stdout.Bytes())
	return exit
}

func (c *call) run(args []string) int {
	args, json, ok := flags(args)
	if !ok || len(args) == 0 {
		return c.badArgs()
	}
	if args[0] == "--monitor" {
		return c.fail(exitFailure, "Netlink interface initialization failed, option --monitor not supported.")
	}
	cmd := find(args[0])
	switch {
	case cmd != nil && args[0] != "":
		args = args[1:]
	case strings.HasPrefix(args[0], "-"):
		return c.badArgs()
	default: // the name of an interface
		cmd = find("")
	}
	if cmd.device {
		if len(args) == 0 {
			return c.badArgs()
		}
		c.name, args = args[0], args[1:]
	}
	if json && cmd.json == nil {
		return c.badArgs()
	}
	if exit, ok := c.checkName(cmd); !ok {
		return exit
	}
	c.args = args
	if json {
		return c.showJSON(cmd)
	}
	return cmd.run(c)
}

// flags takes the flags in front of the command off the arguments. Only --json
// means something here.
func flags(args []string) (rest []string, json, ok bool) {
	for len(args) > 0 {
		switch args[0] {
		case "--debug":
			if len(args) < 2 || args[1] == "" {
				return nil, false, false
			}
			if _, ok := scanInt(args[1]); !ok {
				return nil, false, false
			}
			args = args[2:]
		case "--json":
			json = true
			args = args[1:]
		case "--include-statistics", "-I":
			args = args[1:]
		default:
			return args, json, true
		}
	}
	return nil, json, true
}

// checkName refuses the names that only netlink could take.
func (c *call) checkName(cmd *command) (exit int, ok bool) {
	switch {
	case cmd.ioctl == "": // it says itself that it is for netlink
	case c.name == "*":
		return c.fail(exitFailure, "%s, wildcard dump not supported", cmd.ioctl), false
	case len(c.name) > maxName:
		return c.fail(exitFailure, "%s, device name longer than %d not supported", cmd.ioctl, maxName), false
	}
	return 0, true
}

// badArgs says that the command line cannot be understood.
func (c *call) badArgs() int {
	c.fail(0, "ethtool: bad command line argument(s)")
	return c.fail(exitFailure, "For more information run ethtool -h")
}

// fail writes a line to stderr and returns the status.
func (c *call) fail(exit int, format string, args ...any) int {
	fmt.Fprintf(c.stderr, format+"\n", args...)
	return exit
}

func (c *call) printf(format string, args ...any) { fmt.Fprintf(&c.stdout, format, args...) }
