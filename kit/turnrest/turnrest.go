// Package turnrest makes and reads the credentials that TURN servers check without asking anybody: by a secret that they share with
// whoever hands them out. coturn calls it use-auth-secret. Source: draft-uberti-behave-turn-rest-00, section 2.2.
package turnrest

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // The scheme is HMAC-SHA1.
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// MinSecret is the shortest secret that is taken, in bytes: who has a credential can try secrets at home.
const MinSecret = 16

// Credential returns a TURN user name and password for uid that are good until expires: the user name is "<unix expiry>:<uid>".
func Credential(secret []byte, uid string, expires time.Time) (username, password string) {
	username = strconv.FormatInt(expires.Unix(), 10) + ":" + uid
	return username, Password(secret, username)
}

// Password returns the password of a user name: base64(HMAC-SHA1(secret, user name)).
func Password(secret []byte, username string) string {
	mac := hmac.New(sha1.New, secret)
	_, _ = mac.Write([]byte(username))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Parse returns what a user name says; false if it is none of this scheme. Whether it is genuine only its password shows. A user name without uid,
// which the scheme allows, has the uid "".
func Parse(username string) (expires time.Time, uid string, ok bool) {
	seconds, uid, _ := strings.Cut(username, ":")
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, "", false
	}
	return time.Unix(n, 0), uid, true
}
