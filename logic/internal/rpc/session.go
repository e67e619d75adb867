package rpc

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/proto/errcode"
)

// refreshSession puts a newer token in the place of the session's: the session lives until that one expires, and joins
// by what it grants. Rooms that it is in it stays in, granted or not.
func refreshSession(_ context.Context, c *call, a *sessionRefresh) (any, error) {
	claims, err := c.s.verify(a.Token)
	if err != nil {
		return nil, err
	}
	ses := c.session()
	if claims.Tenant != ses.GetTenant() || claims.UID != ses.GetUid() {
		return nil, errcode.Forbidden.Errorf("the token is another user's")
	}
	// A token of one device must not lengthen the session of another: revocation is by device.
	if claims.DeviceID != ses.GetDeviceId() {
		return nil, errcode.Forbidden.Errorf("the token is another device's")
	}
	e := c.change()
	e.ExpiresAtMs = proto.Int64(expiry(claims))
	e.Grants = encodeGrants(claims)
	return sessionRefreshed{ExpiresAt: float64(expiry(claims))}, nil
}
