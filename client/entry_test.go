package client_test

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"github.com/halley-im/halley/client"
)

func TestChangesMakeOfAMessageWhatTheVectorsSay(t *testing.T) {
	b, err := os.ReadFile("../proto/testdata/changes.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name    string
		Message client.Entry
		Changes []client.Entry
		Want    client.Entry
	}
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			before := plain(v.Message)
			got := v.Message
			for i := range v.Changes {
				got = got.Apply(&v.Changes[i])
			}
			if !reflect.DeepEqual(plain(got), plain(v.Want)) {
				t.Errorf("got %v, want %v", plain(got), plain(v.Want))
			}
			if !reflect.DeepEqual(plain(v.Message), before) {
				t.Errorf("the message itself became %v", plain(v.Message))
			}
		})
	}
}
