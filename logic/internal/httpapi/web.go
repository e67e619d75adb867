package httpapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// webPolicy is the Content-Security-Policy of the web app: what the app needs and nothing else. WebSockets go to comets, whose
// addresses aren't known here.
const webPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
	"connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// webFile is a file of the web app as it is served.
type webFile struct {
	contentType, etag string
	// immutable files have a name that changes with their content.
	immutable    bool
	plain, small []byte
}

// gzipFrom is the size from which files are compressed, once, at start: below it nothing is gained. No setting for that reason.
const gzipFrom = 1 << 10

const notBuilt = `<!doctype html>
<meta charset="utf-8"><title>Halley</title>
<p>Halley is running. Its web app is not built into this program.
<p><a href="/docs">The HTTP API</a>
`

// registerWeb serves the files of the web app at /. They are read now: they can't change while the program runs.
func (a *api) registerWeb() error {
	files := map[string]*webFile{}
	if a.d.Web != nil {
		if err := fs.WalkDir(a.d.Web, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasPrefix(path.Base(name), ".") {
				return err
			}
			b, err := fs.ReadFile(a.d.Web, name)
			if err != nil {
				return err
			}
			files["/"+name] = newWebFile(name, b)
			return nil
		}); err != nil {
			return fmt.Errorf("http: web app: %w", err)
		}
	}
	index := files["/index.html"]
	if index == nil {
		index = newWebFile("index.html", []byte(notBuilt))
	}
	// The app has one page; an unknown path is an error and not the app, so that a typing error shows.
	files["/"] = index
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		f := files[r.URL.Path]
		switch {
		case f == nil:
			plain(w, http.StatusNotFound, "not found\n")
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			plain(w, http.StatusMethodNotAllowed, "method not allowed\n")
		default:
			f.serve(w, r)
		}
	})
	return nil
}

// types are those that the web app has. mime's table depends on the machine's files.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	".json": "application/json", ".webmanifest": "application/manifest+json", ".woff2": "font/woff2", ".png": "image/png", ".ico": "image/x-icon",
	".map": "application/json", ".txt": "text/plain; charset=utf-8", ".webp": "image/webp",
}

func newWebFile(name string, b []byte) *webFile {
	sum := sha256.Sum256(b)
	f := &webFile{plain: b, etag: `"` + hex.EncodeToString(sum[:12]) + `"`, immutable: strings.HasPrefix(name, "assets/")}
	ext := path.Ext(name)
	if f.contentType = types[ext]; f.contentType == "" {
		if f.contentType = mime.TypeByExtension(ext); f.contentType == "" {
			f.contentType = "application/octet-stream"
		}
	}
	compressible := strings.HasPrefix(f.contentType, "text/") || strings.Contains(f.contentType, "json") || strings.Contains(f.contentType, "svg")
	if len(b) >= gzipFrom && compressible {
		var buf bytes.Buffer
		zw, _ := gzip.NewWriterLevel(&buf, gzip.BestCompression) // a level that exists
		_, err := zw.Write(b)
		if err = errors.Join(err, zw.Close()); err == nil && buf.Len() < len(b) {
			f.small = buf.Bytes()
		}
	}
	return f
}

func (f *webFile) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", webPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	f.write(w, r)
}

// write writes the file, or that it hasn't changed.
func (f *webFile) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("ETag", f.etag)
	if f.immutable {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		h.Set("Cache-Control", "no-cache")
	}
	body := f.plain
	if f.small != nil {
		h.Add("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Get("Accept-Encoding")) {
			body = f.small
			h.Set("Content-Encoding", "gzip")
			// Two forms of one file need two strong tags (RFC 9110 section 8.8.3).
			h.Set("ETag", strings.TrimSuffix(f.etag, `"`)+`-gz"`)
		}
	}
	if strings.Contains(r.Header.Get("If-None-Match"), strings.Trim(h.Get("ETag"), `"`)) {
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.contentType)
	h.Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		coding, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		q = strings.ReplaceAll(q, " ", "")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") && q != "q=0" && q != "q=0.0" {
			return true
		}
	}
	return false
}
