package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// Check reads a file and returns the first thing that is wrong with it.
func (l *Loader) Check(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read the config file: %w", err)
	}
	_, err = l.Parse(name, b)
	return err
}

// Parse reads a YAML file's text and returns its values by path, as one would type them at the flag. name is
// for error messages. All keys and values are checked, also those that the running command does not use.
func (l *Loader) Parse(name string, text []byte) (map[string]string, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return map[string]string{}, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %s", name, oneLine(err))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: only one YAML document is read, but there are several", name)
	}
	p := &parser{l: l, name: name, values: map[string]string{}}
	root := resolve(doc.Content[0])
	if isNull(root) {
		return p.values, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, p.errorf(root, "", "the file must hold keys and values")
	}
	if err := p.section(General, root); err != nil {
		return nil, err
	}
	return p.values, nil
}

type parser struct {
	l      *Loader
	name   string
	values map[string]string
}

func (p *parser) errorf(n *yaml.Node, key, format string, args ...any) error {
	e := &Error{Source: fmt.Sprintf("%s:%d", p.name, n.Line), Key: key, Err: fmt.Errorf(format, args...)}
	if key == "" {
		return fmt.Errorf("%s: %w", e.Source, e.Err)
	}
	return e
}

// section reads the mapping n, whose keys are settings of section, and in the general section also the other
// sections' names.
func (p *parser) section(section string, n *yaml.Node) error {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], resolve(n.Content[i+1])
		key := k.Value
		path := key
		if section != General {
			path = section + "." + key
		}
		if seen[key] {
			return p.errorf(k, path, "the key is there twice")
		}
		seen[key] = true
		if section == General && key != General && slices.ContainsFunc(p.l.sections, func(s Section) bool { return s.Key == key }) {
			if isNull(v) {
				continue
			}
			if v.Kind != yaml.MappingNode {
				return p.errorf(k, path, "is a section: its settings belong below it, indented")
			}
			if err := p.section(key, v); err != nil {
				return err
			}
			continue
		}
		at := slices.IndexFunc(p.l.settings, func(s Setting) bool { return s.Section == section && s.Key == key })
		if at < 0 {
			return p.unknown(k, section, path)
		}
		s := p.l.settings[at]
		text, err := s.text(v)
		if err == nil {
			err = s.check(text)
		}
		if err != nil {
			return p.errorf(k, path, "%w", err)
		}
		p.values[path] = text
	}
	return nil
}

// unknown makes the error for a key that no setting has. The nearest key of the same section comes first,
// then that of any section: a setting in the wrong section is the commonest mistake.
func (p *parser) unknown(k *yaml.Node, section, path string) error {
	var here, all []string
	for _, s := range p.l.settings {
		all = append(all, s.Path())
		if s.Section == section {
			here = append(here, s.Path())
		}
		if s.Section != section && s.Key == k.Value {
			return p.errorf(k, path, "%w; did you mean %s?", ErrUnknownKey, s.Path())
		}
	}
	if section == General {
		for _, s := range p.l.sections {
			here = append(here, s.Key)
		}
	}
	near := nearest(path, here)
	if near == "" {
		near = nearest(path, all)
	}
	if near == "" {
		return p.errorf(k, path, "%w; `halley config` prints all that there are", ErrUnknownKey)
	}
	return p.errorf(k, path, "%w; did you mean %s?", ErrUnknownKey, near)
}

// text turns a YAML value into what one would type at the flag.
func (s Setting) text(n *yaml.Node) (string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		if isNull(n) {
			return "", errors.New(`has no value; write "" for an empty one`)
		}
		return n.Value, nil
	case yaml.SequenceNode:
		if !s.list() {
			return "", errors.New("takes one value, not a list")
		}
		parts := make([]string, len(n.Content))
		for i, c := range n.Content {
			c = resolve(c)
			if c.Kind != yaml.ScalarNode || isNull(c) {
				return "", fmt.Errorf("entry %d of the list is not a plain value", i+1)
			}
			parts[i] = c.Value
		}
		return kong.JoinEscaped(parts, s.value.Tag.Sep), nil
	case yaml.MappingNode:
		if !s.value.IsMap() {
			return "", errors.New("takes one value, not keys and values")
		}
		parts := make([]string, 0, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := resolve(n.Content[i]), resolve(n.Content[i+1])
			if k.Kind != yaml.ScalarNode || v.Kind != yaml.ScalarNode {
				return "", fmt.Errorf("the value of %q is not a plain value", k.Value)
			}
			parts = append(parts, k.Value+"="+v.Value)
		}
		return kong.JoinEscaped(parts, s.value.Tag.MapSep), nil
	}
	return "", errors.New("is not a plain value")
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// nearest returns the candidate with the fewest changed letters, or "" if none is near: more than a third of
// the letters changed is another word.
func nearest(word string, candidates []string) string {
	best, at := "", len(word)/3+1
	for _, c := range candidates {
		if d := distance(word, c); d < at || d == at && best == "" {
			best, at = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
