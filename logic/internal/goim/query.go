package goim

import (
	"net/url"
	"strconv"
	"strings"
)

// query yields the pairs of a raw query in their order. It is url.ParseQuery without the map: pairs that can't be
// unescaped or hold a semicolon are left out, as there.
func query(raw string, yield func(key, value string) error) error {
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" || strings.Contains(pair, ";") {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		key, err := unescape(key)
		if err != nil {
			continue
		}
		if value, err = unescape(value); err != nil {
			continue
		}
		if err := yield(key, value); err != nil {
			return err
		}
	}
	return nil
}

func unescape(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, nil
	}
	return url.QueryUnescape(s)
}

// number is an integer parameter as goim's binding takes it: the first value counts, an empty one is 0, and the error is
// strconv's.
type number struct {
	bits  int
	value int64
	set   bool
}

func (n *number) take(s string) error {
	if n.set {
		return nil
	}
	n.set = true
	if s == "" {
		return nil
	}
	v, err := strconv.ParseInt(s, 10, n.bits)
	if err != nil {
		return err
	}
	n.value = v
	return nil
}

// text is a string parameter: the first value counts.
type text struct {
	value string
	set   bool
}

func (t *text) take(s string) {
	if !t.set {
		t.value, t.set = s, true
	}
}

// missing collects the names of required fields that are empty, and says so as goim's validator does.
type missing []string

func (m *missing) check(field string, empty bool) {
	if empty {
		*m = append(*m, field)
	}
}

func (m missing) Error() string {
	lines := make([]string, len(m))
	for i, f := range m {
		lines[i] = "Key: '" + f + "' Error:Field validation for '" + f + "' failed on the 'required' tag"
	}
	return strings.Join(lines, "\n")
}
