package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"hvnet/ethtool"
	"hvnet/nic"
)

// Methods of a driver's socket.
const (
	methodShow         = "show"           // → snapshot
	methodSetChannels  = "set-channels"   // channelsArgs → snapshot
	methodSetRings     = "set-rings"      // ringsArgs → snapshot
	methodSetHashLevel = "set-hash-level" // hashLevelArgs → snapshot
	methodSetRSS       = "set-rss"        // nic.RSSChange → snapshot
	methodSetLink      = "set-link"       // linkArgs → snapshot
	methodSetMessages  = "set-messages"   // uint32 → snapshot
	methodSetFeatures  = "set-features"   // nic.FeatureChange → snapshot
)

// A snapshot is all that a device shows.
type snapshot struct {
	Driver   nic.DriverInfo
	Channels nic.Channels
	Rings    nic.Rings
	Stats    []nic.Stat
	Levels   nic.HashLevels
	RSS      nic.RSS
	Features nic.Features

	Link      nic.LinkSettings
	Messages  uint32
	MAC       nic.MAC // permanent
	Registers nic.Registers
}

type channelsArgs struct {
	Combined int `json:"combined"`
}

type ringsArgs struct {
	Rx int `json:"rx"`
	Tx int `json:"tx"`
}

type hashLevelArgs struct {
	Flow  nic.Flow     `json:"flow"`
	Level nic.HashKind `json:"level"`
}

type linkArgs struct {
	Mbps   uint32     `json:"mbps"`
	Duplex nic.Duplex `json:"duplex"`
}

// setting returns the handler of a method that changes something, and returns all that
// there is to show then.
func setting[A any](show func() snapshot, set func(context.Context, A) error) Handler {
	return func(ctx context.Context, args []byte) (any, error) {
		var a A
		if err := json.Unmarshal(args, &a); err != nil {
			return nil, fmt.Errorf("arguments: %w: %w", ErrMalformed, err)
		}
		if err := set(ctx, a); err != nil {
			return nil, err
		}
		return show(), nil
	}
}

// ServeDevice serves the driver of an interface of the network namespace (see
// [NetNSInode]) to the commands that run there.
func ServeDevice(netns uint64, iface string, d ethtool.Device) (*Server, error) {
	if err := checkName(iface); err != nil {
		return nil, fmt.Errorf("serve driver: %w", err)
	}
	show := func() snapshot {
		return snapshot{
			Driver: d.DriverInfo(), Channels: d.Channels(), Rings: d.Rings(), Stats: d.Stats(), Levels: d.HashLevels(), RSS: d.RSS(),
			Features: d.Features(), Link: d.LinkSettings(), Messages: d.MessageLevel(), MAC: d.PermanentMAC(), Registers: d.Registers(),
		}
	}
	handlers := map[string]Handler{
		methodShow: func(context.Context, []byte) (any, error) { return show(), nil },
		methodSetChannels: setting(show, func(ctx context.Context, a channelsArgs) error {
			return d.SetChannels(ctx, a.Combined)
		}),
		methodSetRings: setting(show, func(ctx context.Context, a ringsArgs) error {
			return d.SetRings(ctx, a.Rx, a.Tx)
		}),
		methodSetHashLevel: setting(show, func(ctx context.Context, a hashLevelArgs) error {
			return d.SetHashLevel(ctx, a.Flow, a.Level)
		}),
		methodSetLink: setting(show, func(ctx context.Context, a linkArgs) error {
			return d.SetLinkSettings(ctx, a.Mbps, a.Duplex)
		}),
		methodSetMessages: setting(show, d.SetMessageLevel),
		methodSetRSS:      setting(show, d.SetRSS),
		methodSetFeatures: setting(show, d.SetFeatures),
	}
	serveSuspend(handlers, d)
	servePlacement(handlers, d)
	serveDetails(handlers, d)
	serveTimeline(handlers, d)
	serveFlows(handlers, d)
	var n news
	n.watch(handlers)
	s, err := ServeIn(netns, iface, handlers)
	if err != nil {
		return nil, fmt.Errorf("serve driver of %s: %w", iface, err)
	}
	s.Stream(methodWatch, n.stream)
	return s, nil
}

// ServeIn serves methods on a socket beside those of the drivers of the network namespace.
// A name that begins with a dot is no driver's.
func ServeIn(netns uint64, name string, handlers map[string]Handler) (s *Server, err error) {
	// Twice, because the last server of the namespace removes the directory, and
	// may do so just now.
	for range 2 {
		if err = makeDirs(netns); err == nil {
			s, err = Serve(socketPath(netns, name), handlers)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	s.removed = func() { os.Remove(namespaceDir(netns)) } // if it is empty
	return s, nil
}

// A Client is a driver in another process. What it shows is of the moment of
// [Device], [Client.Refresh] or a change of settings, whichever was last.
type Client struct {
	path string
	mu   sync.Mutex
	snap snapshot
}

var (
	_ ethtool.Device  = (*Client)(nil)
	_ ethtool.Watcher = (*Client)(nil)
)

// Device finds the driver of an interface of the network namespace. The error is
// nic.ErrNoDevice if none runs.
func Device(ctx context.Context, netns uint64, iface string) (*Client, error) {
	if err := checkName(iface); err != nil {
		return nil, fmt.Errorf("find driver: %w", err)
	}
	if err := checkDir(RuntimeDir()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find driver of %s: %w", iface, err)
	}
	c := &Client{path: socketPath(netns, iface)}
	if err := c.Refresh(ctx); err != nil {
		return nil, fmt.Errorf("find driver of %s: %w", iface, err)
	}
	return c, nil
}

// Refresh asks the driver for what it shows now.
func (c *Client) Refresh(ctx context.Context) error { return c.call(ctx, methodShow, nil) }

// SetChannels implements ethtool.Device.
func (c *Client) SetChannels(ctx context.Context, n int) error {
	return c.call(ctx, methodSetChannels, channelsArgs{n})
}

// SetRings implements ethtool.Device.
func (c *Client) SetRings(ctx context.Context, rx, tx int) error {
	return c.call(ctx, methodSetRings, ringsArgs{rx, tx})
}

// SetHashLevel implements ethtool.Device.
func (c *Client) SetHashLevel(ctx context.Context, f nic.Flow, level nic.HashKind) error {
	return c.call(ctx, methodSetHashLevel, hashLevelArgs{f, level})
}

// SetRSS implements ethtool.Device.
func (c *Client) SetRSS(ctx context.Context, change nic.RSSChange) error {
	return c.call(ctx, methodSetRSS, change)
}

// SetLinkSettings implements ethtool.Device.
func (c *Client) SetLinkSettings(ctx context.Context, mbps uint32, d nic.Duplex) error {
	return c.call(ctx, methodSetLink, linkArgs{mbps, d})
}

// SetMessageLevel implements ethtool.Device.
func (c *Client) SetMessageLevel(ctx context.Context, bits uint32) error {
	return c.call(ctx, methodSetMessages, bits)
}

// SetFeatures implements ethtool.Device.
func (c *Client) SetFeatures(ctx context.Context, change nic.FeatureChange) error {
	return c.call(ctx, methodSetFeatures, change)
}

// call calls a method that returns a snapshot.
func (c *Client) call(ctx context.Context, method string, args any) error {
	var s snapshot
	err := Call(ctx, c.path, method, args, &s)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%w: %w", nic.ErrNoDevice, err)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.snap = s
	c.mu.Unlock()
	return nil
}

func (c *Client) last() snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snap
}

// DriverInfo implements ethtool.Device.
func (c *Client) DriverInfo() nic.DriverInfo { return c.last().Driver }

// Channels implements ethtool.Device.
func (c *Client) Channels() nic.Channels { return c.last().Channels }

// Rings implements ethtool.Device.
func (c *Client) Rings() nic.Rings { return c.last().Rings }

// Stats implements ethtool.Device.
func (c *Client) Stats() []nic.Stat { return c.last().Stats }

// HashLevels implements ethtool.Device.
func (c *Client) HashLevels() nic.HashLevels { return c.last().Levels }

// RSS implements ethtool.Device.
func (c *Client) RSS() nic.RSS { return c.last().RSS }

// Features implements ethtool.Device.
func (c *Client) Features() nic.Features { return c.last().Features }

// LinkSettings implements ethtool.Device.
func (c *Client) LinkSettings() nic.LinkSettings { return c.last().Link }

// MessageLevel implements ethtool.Device.
func (c *Client) MessageLevel() uint32 { return c.last().Messages }

// PermanentMAC implements ethtool.Device.
func (c *Client) PermanentMAC() nic.MAC { return c.last().MAC }

// Registers implements ethtool.Device.
func (c *Client) Registers() nic.Registers { return c.last().Registers }
