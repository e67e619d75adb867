// Package apikey knows the keys that backends bring to the HTTP API: what they look like, which tenant and scopes they
// have, and how one is checked. It holds hashes only; a key's text is shown once, by whoever makes it with New.
//
// A key is "hk_<id>_<secret>": id is 1 to 32 bytes of [a-z0-9-], secret 32 random bytes in unpadded base64url. Because
// the secret is random and long, one SHA-256 of the whole text is hash enough: there is nothing to guess.
//
// The configuration of a key is one line, "id:sha256hex:scopes[:tenant[:rate]]":
//
//	backend:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08:push+read
//	shop:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752:push+token:shop:2000
//	ops:fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13:admin:*
//
// scopes are push, token, chat, read and admin, joined by "+"; admin holds all others. tenant is "default" if left out;
// "*" is a key for all tenants, whose requests name theirs in the header Halley-Tenant (else "default"). rate is the
// key's own limit in requests a second, else the server's. A file holds one such line each; empty lines and lines that
// begin with "#" are skipped.
package apikey

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
)

// Prefix begins every key, so that a leaked one is recognised by scanners.
const Prefix = "hk_"

// AllTenants is the tenant of a key that may act for any.
const AllTenants = "*"

// maxID bounds a key's id: it is part of names in Redis. No setting: ids are chosen to fit it.
const maxID = 32

// Scope is a set of rights.
type Scope uint8

// Scopes. Admin holds all others.
const (
	Push  Scope = 1 << iota // push
	Token                   // make and revoke tokens
	Chat                    // conversations
	Read                    // look at presence, rooms, sessions, the cluster
	Admin                   // kick sessions, change rooms; and all others
)

var scopeNames = []struct {
	name  string
	scope Scope
}{{"push", Push}, {"token", Token}, {"chat", Chat}, {"read", Read}, {"admin", Admin}}

// Has reports whether s holds want, or one of want if it names several.
func (s Scope) Has(want Scope) bool { return s&Admin != 0 || s&want != 0 }

// String returns the scopes joined by "+".
func (s Scope) String() string {
	var names []string
	for _, n := range scopeNames {
		if s&n.scope != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, "+")
}

// ParseScopes reads scopes joined by "+". At least one is needed; an unknown one is an error.
func ParseScopes(s string) (Scope, error) {
	var set Scope
next:
	for part := range strings.SplitSeq(s, "+") {
		for _, n := range scopeNames {
			if n.name == part {
				set |= n.scope
				continue next
			}
		}
		return 0, fmt.Errorf("unknown scope %q: push, token, chat, read or admin", part)
	}
	return set, nil
}

// Key is what is known of an API key, its secret excepted.
type Key struct {
	ID     string
	Scopes Scope
	// Tenant that the key acts for, or AllTenants.
	Tenant string
	// Requests a second; 0: the server's limit.
	Rate int

	hash [sha256.Size]byte
}

// SeesCluster reports whether the key may see what can't be told apart by tenant, such as how many connections a comet has: a key
// of all tenants, or of the default one, which is that of whoever has the cluster to himself.
func (k *Key) SeesCluster() bool { return k.Tenant == AllTenants || k.Tenant == name.DefaultTenant }

// TenantFor returns the tenant that a request with this key acts for: the key's own, or for a key of all tenants the
// one named, which may be empty. It returns errcode.Forbidden if a key of one tenant names another.
func (k *Key) TenantFor(named string) (string, error) {
	switch {
	case k.Tenant != AllTenants:
		if named != "" && named != k.Tenant {
			return "", errcode.Forbidden.Errorf("the API key belongs to another tenant")
		}
		return k.Tenant, nil
	case named == "":
		return name.DefaultTenant, nil
	}
	if err := name.Tenant(named); err != nil {
		return "", err
	}
	return named, nil
}

// Set is the keys of a server. Safe for concurrent use: it never changes.
type Set struct{ byID map[string]*Key }

// Parse reads the configuration lines of keys. The message of an error never shows a hash.
func Parse(lines []string) (*Set, error) {
	set := &Set{byID: make(map[string]*Key, len(lines))}
	for i, line := range lines {
		k, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("API key %d: %w", i+1, err)
		}
		if set.byID[k.ID] != nil {
			return nil, fmt.Errorf("API key %d: id %q is there twice", i+1, k.ID)
		}
		set.byID[k.ID] = k
	}
	return set, nil
}

// ReadFile returns the lines of a file of keys, for Parse.
func ReadFile(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open API keys: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	var lines []string
	for sc := bufio.NewScanner(f); ; {
		if !sc.Scan() {
			if err := sc.Err(); err != nil {
				return nil, fmt.Errorf("read API keys: %w", err)
			}
			return lines, nil
		}
		if line := strings.TrimSpace(sc.Text()); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
}

func parseLine(line string) (*Key, error) {
	parts := strings.Split(strings.TrimSpace(line), ":")
	if len(parts) < 3 || len(parts) > 5 {
		return nil, fmt.Errorf(`must be "id:sha256hex:scope+scope[:tenant[:rate]]"`)
	}
	k := &Key{ID: parts[0], Tenant: name.DefaultTenant}
	if err := checkID(k.ID); err != nil {
		return nil, err
	}
	if n, err := hex.Decode(k.hash[:], []byte(parts[1][:min(len(parts[1]), 2*sha256.Size)])); err != nil || n != sha256.Size || len(parts[1]) != 2*sha256.Size {
		return nil, fmt.Errorf("key %q: the hash must be SHA-256 in 64 hexadecimal digits", k.ID)
	}
	var err error
	if k.Scopes, err = ParseScopes(parts[2]); err != nil {
		return nil, fmt.Errorf("key %q: %w", k.ID, err)
	}
	if len(parts) > 3 && parts[3] != "" {
		if k.Tenant = parts[3]; k.Tenant != AllTenants {
			if err := name.Tenant(k.Tenant); err != nil {
				return nil, fmt.Errorf("key %q: %w", k.ID, err)
			}
		}
	}
	if len(parts) > 4 {
		if k.Rate, err = strconv.Atoi(parts[4]); err != nil || k.Rate < 1 {
			return nil, fmt.Errorf("key %q: the rate must be a number of requests a second, 1 or more", k.ID)
		}
	}
	return k, nil
}

func checkID(id string) error {
	if len(id) == 0 || len(id) > maxID {
		return fmt.Errorf("id %q: 1 to %d bytes", id, maxID)
	}
	for i := range len(id) {
		if c := id[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return fmt.Errorf("id %q: only a-z, 0-9 and -", id)
		}
	}
	return nil
}

// New makes a key and its configuration line. The key's text is not kept anywhere else.
func New(id string, scopes Scope, tenant string) (text, line string, err error) {
	if err := checkID(id); err != nil {
		return "", "", err
	}
	if scopes == 0 {
		return "", "", fmt.Errorf("key %q: at least one scope", id)
	}
	if tenant == "" {
		tenant = name.DefaultTenant
	}
	if tenant != AllTenants {
		if err := name.Tenant(tenant); err != nil {
			return "", "", err
		}
	}
	secret := make([]byte, 32)
	rand.Read(secret) // never fails (crypto/rand: it ends the process instead)
	text = Prefix + id + "_" + base64.RawURLEncoding.EncodeToString(secret)
	return text, Line(id, text, scopes, tenant), nil
}

// Line returns the configuration line of a key whose text is known.
func Line(id, text string, scopes Scope, tenant string) string {
	sum := sha256.Sum256([]byte(text))
	return id + ":" + hex.EncodeToString(sum[:]) + ":" + scopes.String() + ":" + tenant
}

// nobody stands in for an unknown id, so that its answer takes as long as a wrong secret's.
var nobody = &Key{}

// Check finds the key whose text is given. It takes as long for an unknown id as for a wrong secret.
func (s *Set) Check(text string) (*Key, bool) {
	rest, ok := strings.CutPrefix(text, Prefix)
	if !ok {
		return nil, false
	}
	id, _, ok := strings.Cut(rest, "_")
	if !ok || id == "" {
		return nil, false
	}
	k := s.byID[id]
	if k == nil {
		k = nobody
	}
	sum := sha256.Sum256([]byte(text))
	if subtle.ConstantTimeCompare(sum[:], k.hash[:]) != 1 || k == nobody {
		return nil, false
	}
	return k, true
}

// Len returns the number of keys.
func (s *Set) Len() int { return len(s.byID) }
