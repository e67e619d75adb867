package comet_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
)

// keyPair makes a certificate for the loopback address, once.
var keyPair = sync.OnceValues(func() (cert, key []byte) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "comet"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &priv.PublicKey, priv)
	if err != nil {
		panic(err)
	}
	raw, err := x509.MarshalECPrivateKey(priv)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
})

// withTLS adds both TLS listeners.
func withTLS(_ *comet.Config, d *comet.Deps, n *node) {
	cert, key := keyPair()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		n.t.Fatal(err)
	}
	d.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	d.TLSTCP, d.WSS = listen(n.t), listen(n.t)
}

func TestCertificateFilesAreUsed(t *testing.T) {
	cert, key := keyPair()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	os.WriteFile(certFile, cert, 0o600)
	os.WriteFile(keyFile, key, 0o600)
	n := start(t, func(c *comet.Config, d *comet.Deps, n *node) {
		c.TLSCert, c.TLSKey = certFile, keyFile
		d.TLSTCP, d.WSS = listen(t), listen(t)
	})
	n.login("tls", `{}`).barrier()
	n.login("wss", `{}`).barrier()
}

func TestTLSListenerWithoutCertificateIsAnError(t *testing.T) {
	ln := listen(t)
	defer ln.Close()
	if _, err := comet.New(defaults(t), comet.Deps{Log: quiet(), TLSTCP: ln}); err == nil {
		t.Error("New succeeded")
	}
}

func TestGarbageOnTLSPortsIsClosed(t *testing.T) {
	n := start(t, withTLS)
	for _, addr := range []string{n.tls, n.wss} {
		c := &client{t: t}
		c.conn, _ = net.Dial("tcp", addr)
		defer c.conn.Close()
		c.conn.Write(frame.Append(nil, frame.Frame{Op: frame.OpAuth, Body: []byte(`{}`)}))
		buf := make([]byte, 100)
		c.conn.SetReadDeadline(time.Now().Add(patience))
		for {
			if _, err := c.conn.Read(buf); err != nil {
				c.ended(err)
				break
			}
		}
	}
}
