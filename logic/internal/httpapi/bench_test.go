package httpapi_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkHandler is what requests cost before Kafka, a good key and JSON included.
func BenchmarkHandler(b *testing.B) {
	batch := `{"items":[` + strings.TrimSuffix(strings.Repeat(`{"uids":["u123"],"text":"hello"},`, 50), ",") + `]}`
	uids := `{"uids":["` + strings.Repeat(`u123","`, 49) + `u1"],"text":"hello"}`
	for _, c := range []struct{ name, path, body string }{
		{"goim", "/goim/push/mids?operation=1000&mids=123456", "hello"}, {"push", "/v1/push", `{"uids":["u123"],"text":"hello"}`}, {"push50", "/v1/push", uids}, {"batch50", "/v1/push/batch", batch},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newServer(b)
			s.kafka.discard = true
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest("POST", c.path, strings.NewReader(c.body))
				r.Header.Set("Authorization", "Bearer "+s.keys["push"])
				w := httptest.NewRecorder()
				s.handler.ServeHTTP(w, r)
				if w.Code != 200 {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}

// BenchmarkServer is the same through a socket, 64 requests in flight; the client's share is in it.
func BenchmarkServer(b *testing.B) {
	for _, c := range []struct{ name, path, body string }{
		{"goim", "/goim/push/mids?operation=1000&mids=123456", "hello"}, {"push", "/v1/push", `{"uids":["u123"],"text":"hello"}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			rdb, prefix := redisFor(b)
			s := newServer(b, withRedis(rdb, prefix))
			s.kafka.discard = true
			tr := &http.Transport{MaxIdleConnsPerHost: 64}
			defer tr.CloseIdleConnections()
			hc := &http.Client{Transport: tr}
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := post(hc, s.url+c.path, s.keys["push"], c.body); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}

func post(c *http.Client, url, key, body string) error {
	req, err := http.NewRequest("POST", url, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
		return fmt.Errorf("status %d, %w", res.StatusCode, err)
	}
	return nil
}
