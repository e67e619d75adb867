package name_test

import (
	"hash/fnv"
	"testing"

	"github.com/halley-im/halley/proto/name"
)

func TestBucketIsFNV1aOfTenantNULName(t *testing.T) {
	for _, c := range [][2]string{{"default", "alice"}, {"a", "room://1"}, {"", ""}, {"t-1", "ü"}} {
		h := fnv.New32a()
		h.Write([]byte(c[0] + "\x00" + c[1]))
		if got, want := name.Bucket(c[0], c[1]), h.Sum32()%name.Buckets; got != want {
			t.Errorf("Bucket(%q, %q) = %d, want %d", c[0], c[1], got, want)
		}
	}
}
