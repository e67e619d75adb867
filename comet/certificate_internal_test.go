package comet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// writeCertificate puts a certificate with this serial number into the folder.
func writeCertificate(t *testing.T, dir string, serial int64, changed time.Time) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(certFile, changed, changed); err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile
}

func TestRenewedCertificateIsServedAfterTLSReload(t *testing.T) {
	dir := t.TempDir()
	began := time.Now()
	certFile, keyFile := writeCertificate(t, dir, 1, began.Add(-time.Hour))
	serial := func(c *certificate) int64 {
		t.Helper()
		cert, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert.Leaf.SerialNumber.Int64()
	}
	soon, late := &certificate{certFile: certFile, keyFile: keyFile}, &certificate{certFile: certFile, keyFile: keyFile, reload: time.Hour}
	if a, b := serial(soon), serial(late); a != 1 || b != 1 {
		t.Fatalf("got %d and %d, want the first certificate", a, b)
	}
	writeCertificate(t, dir, 2, began)
	if a, b := serial(soon), serial(late); a != 2 || b != 1 {
		t.Errorf("got %d and %d, want the new certificate where it is time to look, else the old one", a, b)
	}
}
