package conform

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"unicode"

	"hvnet/rndis"
)

// fields writes the fields of a message, "name value, name value". Those that are
// empty lists, zero arrays and zero GUIDs say nothing and are left out.
func fields(m any) string {
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Struct {
		return fmt.Sprint(m)
	}
	var list []string
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		if s := value(f.Name, v.Field(i)); s != "" {
			list = append(list, fieldName(f.Name)+" "+s)
		}
	}
	return strings.Join(list, ", ")
}

// addresses are the fields whose numbers people read in hexadecimal.
var addresses = map[string]bool{
	"GPADL": true, "ID": true, "Status": true, "ConnID": true, "InterruptPage": true, "ParentToChild": true,
	"ChildToParent": true, "Capabilities": true, "Flags": true, "Section": true, "Features": true, "MaxTransfer": true,
	"HashInfo": true,
}

// optional are the fields that many messages do not have; zero then means nothing.
var optional = map[string]bool{
	"InterruptPage": true, "VTL": true, "Features": true, "ParentToChild": true, "ChildToParent": true, "ConnID": true,
	"EventFlag": true, "Redirect": true, "Version": true,
}

// value writes one field, "" if there is nothing to say.
func value(name string, v reflect.Value) string {
	if v.IsZero() && (optional[name] || v.Type() == reflect.TypeFor[rndis.OffloadChoice]()) {
		return ""
	}
	if v.Kind() == reflect.Interface {
		if v.IsNil() {
			return ""
		}
		v = v.Elem()
	}
	if s, ok := v.Interface().(fmt.Stringer); ok {
		if v.Kind() == reflect.Array && v.IsZero() {
			return ""
		}
		return s.String()
	}
	switch v.Kind() {
	case reflect.Array, reflect.Slice:
		return values(v)
	case reflect.Struct:
		return "{" + fields(v.Interface()) + "}"
	case reflect.Bool:
		if v.Bool() {
			return "yes"
		}
		return "no"
	}
	if v.CanUint() && (addresses[name] || v.Uint() == math.MaxUint32) {
		return fmt.Sprintf("%#x", v.Uint())
	}
	return fmt.Sprint(v.Interface())
}

// longest is how many bytes or elements of a list are written out.
const longest = 40

// values writes a list.
func values(v reflect.Value) string {
	n := v.Len()
	if n == 0 || v.Kind() == reflect.Array && v.IsZero() {
		return ""
	}
	k := min(n, longest)
	var s string
	if v.Type().Elem().Kind() == reflect.Uint8 {
		b := make([]byte, k)
		reflect.Copy(reflect.ValueOf(b), v.Slice(0, k))
		s = fmt.Sprintf("%x", b)
	} else {
		var list []string
		for i := range k {
			list = append(list, value("", v.Index(i)))
		}
		s = strings.Join(list, " ")
	}
	if k < n {
		s += fmt.Sprintf("… (%d)", n)
	}
	return s
}

// fieldName makes words of a Go name: TargetVP is "target VP".
func fieldName(name string) string {
	rs := []rune(name)
	var words []string
	from := 0
	for i := 1; i <= len(rs); i++ {
		if i < len(rs) {
			// After a small letter, or the last capital before some; "v4" is neither.
			begins := unicode.IsUpper(rs[i]) && (unicode.IsLower(rs[i-1]) ||
				i+1 < len(rs) && unicode.IsLower(rs[i+1]) && rs[i+1] != 'v')
			if !begins {
				continue
			}
		}
		w := string(rs[from:i])
		if unicode.IsLower(rs[min(from+1, len(rs)-1)]) {
			w = strings.ToLower(w)
		}
		words = append(words, w)
		from = i
	}
	return strings.Join(words, " ")
}
