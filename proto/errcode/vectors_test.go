package errcode_test

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/halley-im/halley/proto/errcode"
)

// TestTableIsTheOneThatClientsRead holds testdata/errcodes.json, which SDKs test their own tables against, to
// the table.
func TestTableIsTheOneThatClientsRead(t *testing.T) {
	type code struct {
		Name  string `json:"name"`
		Text  string `json:"text"`
		Close int    `json:"close"`
		Retry bool   `json:"retry"`
	}
	var want bytes.Buffer
	want.WriteString("[\n")
	for i, c := range errcode.All() {
		if i > 0 {
			want.WriteString(",\n")
		}
		b, err := json.Marshal(code{c.Name, c.Text, c.Close, c.Retry})
		if err != nil {
			t.Fatal(err)
		}
		want.WriteString("  ")
		want.Write(b)
	}
	want.WriteString("\n]\n")
	const path = "../testdata/errcodes.json"
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("testdata/errcodes.json is not the table: go test ./errcode -update")
	}
}
