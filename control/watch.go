package control

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"

	"hvnet/ethtool"
)

// methodWatch keeps the connection, on which comes a line of JSON for each change of
// settings: an ethtool.Change.
const methodWatch = "watch"

// changes are those that methods make.
var changes = map[string]ethtool.Change{
	methodSetChannels: ethtool.ChangedChannels,
	methodSetRings:    ethtool.ChangedRings,
	methodSetLink:     ethtool.ChangedSettings,
	methodSetMessages: ethtool.ChangedSettings,
	methodSetFeatures: ethtool.ChangedFeatures,
}

// news tells whoever watches of changes. Who does not keep up misses those that it has been
// told of already and not looked at: they are all the same to it.
type news struct {
	mu      sync.Mutex
	readers map[chan ethtool.Change]bool
}

func (n *news) tell(c ethtool.Change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for r := range n.readers {
		select {
		case r <- c:
		default:
		}
	}
}

func (n *news) join() chan ethtool.Change {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.readers == nil {
		n.readers = map[chan ethtool.Change]bool{}
	}
	r := make(chan ethtool.Change, 64)
	n.readers[r] = true
	return r
}

func (n *news) leave(r chan ethtool.Change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.readers, r)
}

// watch has the methods that change something tell of it.
func (n *news) watch(handlers map[string]Handler) {
	for method, change := range changes {
		h := handlers[method]
		handlers[method] = func(ctx context.Context, args []byte) (any, error) {
			result, err := h(ctx, args)
			if err == nil {
				n.tell(change)
			}
			return result, err
		}
	}
}

// stream is the method by which others watch.
func (n *news) stream(context.Context, []byte) (func(context.Context, *net.UnixConn), error) {
	r := n.join()
	return func(ctx context.Context, c *net.UnixConn) {
		defer n.leave(r)
		left := make(chan struct{})
		go func() {
			defer close(left)
			c.Read(make([]byte, 1)) // the client has nothing to say: it has left
		}()
		defer func() {
			c.Close()
			<-left
		}()
		for out := json.NewEncoder(c); ; {
			select {
			case change := <-r:
				if out.Encode(change) != nil {
					return
				}
			case <-left:
				return
			case <-ctx.Done():
				return
			}
		}
	}, nil
}

// Watch implements ethtool.Watcher.
func (c *Client) Watch(ctx context.Context, begun func(), changed func(ethtool.Change)) error {
	conn, err := c.Stream(ctx, methodWatch, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	begun()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		var change ethtool.Change
		if err := json.Unmarshal(lines.Bytes(), &change); err != nil {
			return fmt.Errorf("watch %s: %w: %w", c.path, ErrMalformed, err)
		}
		changed(change)
	}
	return ctx.Err()
}
