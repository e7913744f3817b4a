package matrix

import (
	"fmt"
	"testing"
)

func TestAll(t *testing.T) {
	axes := []Axis{{"a", []string{"x", "y", "z"}}, {"b", []string{"on", "off"}}}
	want := []string{"x/b=on", "x/b=off", "y/b=on", "y/b=off", "z/b=on", "z/b=off"}
	if got := fmt.Sprint(All(axes)); got != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	c := All(axes)[4]
	if c.Of("a") != "z" || !c.On("b") || All(axes)[5].On("b") {
		t.Errorf("%v has %s and %s", c, c.Of("a"), c.Of("b"))
	}
}

// TestPairs checks that each value meets each value of the other axes, in few cases.
func TestPairs(t *testing.T) {
	axis := func(name string, n int) (a Axis) {
		a.Name = name
		for i := range n {
			a.Values = append(a.Values, fmt.Sprint(name, i))
		}
		return a
	}
	for _, tt := range []struct {
		sizes []int
		most  int
	}{
		{[]int{3}, 0}, // no pairs, no cases
		{[]int{2, 2}, 4},
		{[]int{2, 2, 2}, 4},
		{[]int{3, 1, 4}, 12},
		{[]int{8, 2, 2, 3, 2, 2, 2, 2, 2}, 30},
		{[]int{5, 5, 5, 5}, 40},
	} {
		var axes []Axis
		for i, n := range tt.sizes {
			axes = append(axes, axis(string(rune('a'+i)), n))
		}
		met := map[[2]string]bool{}
		list := Pairs(axes)
		for _, c := range list {
			for i := range axes {
				for j := range i {
					met[[2]string{c.Of(axes[j].Name), c.Of(axes[i].Name)}] = true
				}
			}
		}
		for i := range axes {
			for j := range i {
				for _, v := range axes[i].Values {
					for _, w := range axes[j].Values {
						if !met[[2]string{w, v}] {
							t.Errorf("%v: %s never meets %s", tt.sizes, w, v)
						}
					}
				}
			}
		}
		if len(list) > tt.most {
			t.Errorf("%v: %d cases, want at most %d", tt.sizes, len(list), tt.most)
		}
	}
}
