package httpapi

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/halley-im/halley/proto/errcode"
)

// The description of the API is made out of the handlers' types, and rendered into one page without
// scripts: huma's own pages load theirs from a CDN.

//go:embed docs.html docs.css
var docFiles embed.FS

const docsPolicy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// registerDocs registers the description's files. They are made when one of them is first asked for: that takes longer than everything
// else in New.
func (a *api) registerDocs() {
	files := sync.OnceValues(a.docs)
	for _, path := range []string{"/openapi.json", "/openapi.yaml", "/docs", "/docs.css"} {
		a.get(path, func(w http.ResponseWriter, r *http.Request) {
			all, err := files()
			if err != nil {
				a.fail(w, r, err)
				return
			}
			w.Header().Set("Content-Security-Policy", docsPolicy)
			w.Header().Set("Referrer-Policy", "no-referrer")
			all[path].write(w, r)
		})
	}
}

// docs makes the description's files, by their paths.
func (a *api) docs() (map[string]*webFile, error) {
	all := map[string]*webFile{}
	for _, f := range []struct {
		path, contentType string
		make              func() ([]byte, error)
	}{
		{"/openapi.json", "application/openapi+json", a.huma.OpenAPI().MarshalJSON},
		{"/openapi.yaml", "application/openapi+yaml", a.huma.OpenAPI().YAML},
		{"/docs", "text/html; charset=utf-8", func() ([]byte, error) { return renderDocs(a.huma.OpenAPI()) }},
		{"/docs.css", "text/css; charset=utf-8", func() ([]byte, error) { return docFiles.ReadFile("docs.css") }},
	} {
		body, err := f.make()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
		all[f.path] = newWebFile(f.path, body)
		all[f.path].contentType = f.contentType
	}
	return all, nil
}

// docOperation is an operation as the page shows it.
type docOperation struct {
	*huma.Operation
	Fields  []docField
	Answers []docField
	Curl    string
}

// docField is one field of a body, by its path.
type docField struct {
	Path, Type, Doc string
	Required        bool
}

func renderDocs(spec *huma.OpenAPI) ([]byte, error) {
	t, err := template.New("docs.html").Funcs(template.FuncMap{"paragraphs": paragraphs}).ParseFS(docFiles, "docs.html")
	if err != nil {
		return nil, err
	}
	var ops []docOperation
	for path, item := range spec.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			d := docOperation{Operation: op, Curl: curl(op, path)}
			if op.RequestBody != nil {
				d.Fields = fields(spec, op.RequestBody.Content["application/json"].Schema, "", 0)
			}
			if res := op.Responses["200"]; res != nil && res.Content["application/json"] != nil {
				d.Answers = fields(spec, res.Content["application/json"].Schema, "", 0)
			}
			ops = append(ops, d)
		}
	}
	slices.SortFunc(ops, func(a, b docOperation) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return strings.Compare(a.Method, b.Method)
	})
	var buf bytes.Buffer
	err = t.Execute(&buf, map[string]any{"Info": spec.Info, "Operations": ops, "Errors": errcode.All()})
	return buf.Bytes(), err
}

// fields lists what is in a schema, depth first.
func fields(spec *huma.OpenAPI, s *huma.Schema, prefix string, depth int) []docField {
	for s != nil && s.Ref != "" {
		s = spec.Components.Schemas.SchemaFromRef(s.Ref)
	}
	if s == nil || depth > 4 {
		return nil
	}
	var list []docField
	names := make([]string, 0, len(s.Properties))
	for n := range s.Properties {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		p := s.Properties[n]
		f := docField{Path: prefix + n, Doc: p.Description, Required: slices.Contains(s.Required, n), Type: typeOf(p)}
		list = append(list, f)
		inner, more := p, f.Path+"."
		if p.Type == huma.TypeArray {
			inner, more = p.Items, f.Path+"[]."
		}
		list = append(list, fields(spec, inner, more, depth+1)...)
	}
	return list
}

func typeOf(s *huma.Schema) string {
	switch {
	case s.Ref != "":
		return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
	case s.Type == huma.TypeArray && s.Items != nil:
		return "list of " + typeOf(s.Items)
	case len(s.Enum) > 0:
		values := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			values[i] = fmt.Sprint(v)
		}
		return strings.Join(values, ", ")
	case s.Type == "":
		return "any JSON"
	}
	return s.Type
}

// curl is a call that a reader can start from.
func curl(op *huma.Operation, path string) string {
	var b strings.Builder
	b.WriteString("curl")
	if op.Method != http.MethodGet {
		b.WriteString(" -X " + op.Method)
	}
	if len(op.Security) > 0 {
		b.WriteString(` -H "Authorization: Bearer $HALLEY_KEY"`)
	}
	if op.RequestBody != nil {
		b.WriteString(` -H "Content-Type: application/json" -d '{…}'`)
	}
	b.WriteString(" $HALLEY" + path)
	return b.String()
}

func paragraphs(s string) []string { return strings.Split(strings.ReplaceAll(s, "`", ""), "\n\n") }
