package top

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gdamore/tcell/v2"

	"hvnet/nic"
)

// A Fetch asks a driver for a snapshot. The error is nic.ErrNoDevice when it is gone.
type Fetch func(context.Context) (Snapshot, error)

// Watch asks for a view of an interface each time that much time has passed and hands it
// to show, until ctx ends or show returns false; that, and a driver that ends, is no error
// but gone. Rates are between two snapshots, so the first view comes after one interval.
func Watch(ctx context.Context, iface string, every time.Duration, fetch Fetch, show func(View) (more bool)) (gone bool, err error) {
	before, err := fetch(ctx)
	if err != nil {
		return false, err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-tick.C:
		}
		now, err := fetch(ctx)
		if err != nil && !errors.Is(err, nic.ErrNoDevice) {
			now, err = fetch(ctx) // a driver that was just ending is gone now
		}
		switch {
		case ctx.Err() != nil:
			return false, nil
		case errors.Is(err, nic.ErrNoDevice):
			return true, nil
		case err != nil:
			return false, err
		}
		if !show(Compute(iface, before, now)) {
			return false, nil
		}
		before = now
	}
}

// Run shows an interface on a terminal until its user leaves, ctx ends or the driver does,
// which is gone. It owns the screen, which was not initialized yet.
func Run(ctx context.Context, screen tcell.Screen, iface string, every time.Duration, fetch Fetch) (gone bool, err error) {
	if err := screen.Init(); err != nil {
		return false, fmt.Errorf("use the terminal: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan tcell.Event, 16)
	quit := make(chan struct{})
	go screen.ChannelEvents(events, quit) // closes events when the screen is finished
	views := make(chan View)
	type end struct {
		gone bool
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		gone, err := Watch(ctx, iface, every, fetch, func(v View) bool {
			select {
			case views <- v:
				return true
			case <-ctx.Done():
				return false
			}
		})
		ended <- end{gone, err}
	}()
	defer func() {
		cancel()
		close(quit)
		screen.Fini()
		for range events {
		}
	}()
	d := display{screen: screen, iface: iface}
	d.draw()
	for {
		select {
		case v := <-views:
			d.news(&v)
		case ev := <-events:
			if d.event(ev) {
				cancel()
			}
		case e := <-ended:
			return e.gone, e.err
		}
		d.draw()
	}
}

// A display is what is on the screen.
type display struct {
	screen  tcell.Screen
	iface   string
	view    *View
	by      Order
	reverse bool
	paused  bool
	first   int // the line of a channel that is shown first
}

// news takes a view, unless the user wants to go on looking at the last.
func (d *display) news(v *View) {
	if !d.paused {
		d.view = v
	}
}

// event does what the user wants, and returns whether that is to leave.
func (d *display) event(ev tcell.Event) (leave bool) {
	switch ev := ev.(type) {
	case *tcell.EventResize:
		d.screen.Sync()
	case *tcell.EventKey:
		switch ev.Key() {
		case tcell.KeyEscape, tcell.KeyCtrlC:
			return true
		case tcell.KeyUp:
			d.first--
		case tcell.KeyDown:
			d.first++
		case tcell.KeyPgUp:
			d.first -= 10
		case tcell.KeyPgDn:
			d.first += 10
		case tcell.KeyRune:
			return d.letter(ev.Rune())
		}
	}
	return false
}

func (d *display) letter(r rune) (leave bool) {
	switch r {
	case 'q':
		return true
	case 's':
		d.by = (d.by + 1) % orders
	case 'r':
		d.reverse = !d.reverse
	case ' ':
		d.paused = !d.paused
	}
	return false
}

// draw draws all. The terminal gets what has changed.
func (d *display) draw() {
	d.screen.Clear()
	width, height := d.screen.Size()
	y := 0
	line := func(text string, style tcell.Style) {
		if y < height {
			d.screen.PutStrStyled(0, y, clip(text, width), style)
		}
		y++
	}
	bold := tcell.StyleDefault.Bold(true)
	if d.view == nil {
		line(d.iface+": looking for a moment", tcell.StyleDefault)
	} else {
		p := d.view.Page(d.by, d.reverse)
		for i, text := range p.Head {
			style := tcell.StyleDefault
			if i == 0 || i >= len(p.Head)-2 {
				style = bold
			}
			line(text, style)
		}
		// The sum and the keys are there in any case, then channels, then counters.
		room := max(height-y-3, 1)
		d.first = max(min(d.first, len(p.Queues)-room), 0)
		for _, text := range p.Queues[d.first:min(d.first+room, len(p.Queues))] {
			line(text, tcell.StyleDefault)
		}
		line(p.All, bold)
		line("", tcell.StyleDefault)
		for i, text := range p.Counters {
			if y >= height-1 {
				break
			}
			style := tcell.StyleDefault
			if i == 0 {
				style = bold
			}
			line(text, style)
		}
	}
	y = max(height-1, 0)
	line(d.keys(), tcell.StyleDefault.Reverse(true))
	d.screen.Show()
}

// keys is the last line.
func (d *display) keys() string {
	text := "q quit   s sort, by " + d.by.String()
	if d.reverse {
		text += " reversed"
	}
	text += "   r reverse   space pause"
	if d.paused {
		text += ": paused"
	}
	return text
}

// clip cuts a line of single-width characters.
func clip(text string, width int) string {
	if len(text) > width {
		return text[:max(width, 0)]
	}
	return text
}
