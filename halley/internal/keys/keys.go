// Package keys makes and reads the secrets of a data folder: what signs tokens, what the HTTP API asks of
// backends, what the roles ask of each other, what the relay checks credentials by. The first start makes them; nobody else knows them, since no default
// secret exists. Each is a file that only its owner may read. Nothing here is ever logged.
package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/halley-im/halley/kit/token"
)

// Files of a data folder.
const (
	signingFile = "token-key"
	apiFile     = "api-key"
	clusterFile = "cluster-secret"
	turnFile    = "turn-secret"
)

// SigningID is the kid of the token signing key of a data folder.
const SigningID = "local"

// secretBytes is the length of every secret before it is encoded.
const secretBytes = 32

// Set is the secrets of a data folder.
type Set struct {
	// API is the API key for all tenants and scopes, as a backend sends it.
	API string
	// Cluster is the secret of the roles.
	Cluster string
	// TURN is the secret of the relay and of those who make credentials for it.
	TURN string

	dir     string
	signing string
}

// APIFile returns the file that holds the API key of a data folder.
func APIFile(dataDir string) string { return filepath.Join(dataDir, apiFile) }

// SigningFile returns the file that holds the token signing key of a data folder.
func SigningFile(dataDir string) string { return filepath.Join(dataDir, signingFile) }

// Ensure reads the secrets of a data folder and makes those that are missing. made tells whether any was. A
// secret that is there is never replaced: tokens and backends depend on it.
func Ensure(dataDir string) (s *Set, made bool, err error) {
	s = &Set{dir: dataDir}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, false, fmt.Errorf("make the data folder: %w", err)
	}
	for _, f := range []struct {
		name   string
		format string
		into   *string
	}{
		{signingFile, "%s", &s.signing},
		{apiFile, "hk_local_%s", &s.API},
		{clusterFile, "%s", &s.Cluster},
		{turnFile, "%s", &s.TURN},
	} {
		v, err := read(filepath.Join(dataDir, f.name))
		if errors.Is(err, fs.ErrNotExist) {
			v = fmt.Sprintf(f.format, random())
			err = write(filepath.Join(dataDir, f.name), v)
			made = true
		}
		if err != nil {
			return nil, false, err
		}
		*f.into = v
	}
	return s, made, nil
}

// SigningSpec returns the token signing key as configuration names it: a file, so that the secret itself is in
// no setting.
func (s *Set) SigningSpec() string { return SigningID + ":HS256:@" + SigningFile(s.dir) }

// SigningKey returns the token signing key.
func (s *Set) SigningKey() (*token.Key, error) { return token.ParseKey(s.SigningSpec()) }

// APISpec returns the API key as logic's configuration takes it: its hash, its scopes, its tenants.
func (s *Set) APISpec() string {
	sum := sha256.Sum256([]byte(s.API))
	return "local:" + hex.EncodeToString(sum[:]) + ":admin:*"
}

// ReadAPI returns the API key of a data folder.
func ReadAPI(dataDir string) (string, error) { return read(APIFile(dataDir)) }

// ReadTURN returns the secret of a data folder's relay.
func ReadTURN(dataDir string) (string, error) { return read(filepath.Join(dataDir, turnFile)) }

// read returns a secret's text. A file that others may read is refused: somebody copied it without care, and
// what it holds has to be taken for known.
func read(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("%s may be read by others (mode %#o): run `chmod 600 %s`", path, mode, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	v := strings.TrimSpace(string(b))
	if v == "" {
		return "", fmt.Errorf("%s is empty: remove it to have a new one made", path)
	}
	return v, nil
}

// write makes a file that was not there. It is whole or not there at all, also after a power cut: an empty key
// file would stop every later start.
func write(path, v string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(v + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// A link fails where the file appeared meanwhile; a rename would replace another start's secret.
	return os.Link(f.Name(), path)
}

func random() string {
	var b [secretBytes]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Files returns the files of a data folder's secrets.
func Files(dataDir string) []string {
	return []string{APIFile(dataDir), SigningFile(dataDir), filepath.Join(dataDir, clusterFile), filepath.Join(dataDir, turnFile)}
}
