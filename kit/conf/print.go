package conf

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// width is the length at which the sample's comments are broken.
const width = 100

// WriteSample prints the annotated sample file: every setting with its meaning, its name in the environment and
// its default, commented out, so that the file as printed changes nothing.
func (l *Loader) WriteSample(w io.Writer) error {
	var b bytes.Buffer
	for _, sec := range l.sections {
		indent := "  "
		settings := l.in(sec.Key)
		if len(settings) == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		comment(&b, "", "== "+sec.Title+" ==")
		comment(&b, "", sec.Help)
		if sec.Key == General {
			indent = ""
		} else {
			fmt.Fprintf(&b, "%s:\n", sec.Key)
		}
		for _, s := range settings {
			b.WriteByte('\n')
			comment(&b, indent, s.meaning())
			comment(&b, indent, "Environment: "+s.Env)
			text, err := s.yaml()
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s#%s: %s\n", indent, s.Key, text)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// WriteMarkdown prints the tables of docs/config.md, a section each.
func (l *Loader) WriteMarkdown(w io.Writer) error {
	var b bytes.Buffer
	for _, sec := range l.sections {
		settings := l.in(sec.Key)
		if len(settings) == 0 {
			continue
		}
		fmt.Fprintf(&b, "## %s\n\n", sec.Title)
		if sec.Help != "" {
			fmt.Fprintf(&b, "%s\n\n", sec.Help)
		}
		b.WriteString("| key in the file | environment | flag | default | meaning |\n|---|---|---|---|---|\n")
		for _, s := range settings {
			def := "–"
			if s.Default != "" {
				def = "`" + s.Default + "`"
			}
			fmt.Fprintf(&b, "| `%s` | `%s` | `--%s` | %s | %s |\n", s.Path(), s.Env, s.Flag, def, strings.ReplaceAll(s.meaning(), "|", `\|`))
		}
		b.WriteByte('\n')
	}
	_, err := w.Write(bytes.TrimRight(b.Bytes(), "\n"))
	if err == nil {
		_, err = io.WriteString(w, "\n")
	}
	return err
}

func (l *Loader) in(section string) []Setting {
	var out []Setting
	for _, s := range l.settings {
		if s.Section == section {
			out = append(out, s)
		}
	}
	return out
}

// meaning returns the help as a sentence, with the legal values where they are few.
func (s Setting) meaning() string {
	text := strings.TrimSpace(s.Help)
	if text != "" && !strings.HasSuffix(text, ".") {
		text += "."
	}
	if len(s.Enum) > 0 {
		shown := make([]string, len(s.Enum))
		for i, e := range s.Enum {
			if shown[i] = e; e == "" {
				shown[i] = "empty"
			}
		}
		text += " One of: " + strings.Join(shown, ", ") + "."
	}
	return text
}

// yaml returns the default as YAML.
func (s Setting) yaml() (string, error) {
	var v any = s.Default
	switch {
	case s.list():
		list := []string{}
		if s.Default != "" {
			list = strings.Split(s.Default, string(s.value.Tag.Sep))
		}
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, e := range list {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: e})
		}
		v = n
	case s.value.IsMap():
		v = &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	case s.Default != "":
		// Plain where YAML allows it: numbers, durations and addresses need no quotes.
		v = &yaml.Node{Kind: yaml.ScalarNode, Value: s.Default}
	case s.value.IsBool():
		v = false
	}
	b, err := yaml.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("print %s: %w", s.Path(), err)
	}
	return strings.TrimRight(string(b), "\n"), nil
}

// comment writes text as YAML comments, broken at width.
func comment(b *bytes.Buffer, indent, text string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(indent)+2+len(line)+1+len(word) > width {
			fmt.Fprintf(b, "%s# %s\n", indent, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		fmt.Fprintf(b, "%s# %s\n", indent, line)
	}
}
