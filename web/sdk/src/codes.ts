// The error table of proto/errcode, as clients need it. A test holds it to proto/testdata/errcodes.json.

/**
 * Codes that servers tell, each with the WebSocket close code that ends a connection with it and whether the
 * same request may succeed later without being changed.
 */
export const errorCodes = {
  invalid_request: { close: 4000, retry: false },
  unknown_method: { close: 4000, retry: false },
  invalid_frame: { close: 1002, retry: false },
  too_large: { close: 1009, retry: false },
  unauthenticated: { close: 4001, retry: false },
  token_expired: { close: 4002, retry: false },
  token_revoked: { close: 4003, retry: false },
  forbidden: { close: 4004, retry: false },
  not_found: { close: 4005, retry: false },
  method_not_allowed: { close: 4000, retry: false },
  op_reserved: { close: 4000, retry: false },
  room_reserved: { close: 4004, retry: false },
  too_many_rooms: { close: 4004, retry: false },
  too_many_watched: { close: 4004, retry: false },
  too_many_sessions: { close: 4006, retry: false },
  replaced: { close: 4007, retry: false },
  kicked: { close: 4008, retry: false },
  not_member: { close: 4004, retry: false },
  already_member: { close: 4000, retry: false },
  too_many_members: { close: 4004, retry: false },
  muted: { close: 4004, retry: false },
  blocked: { close: 4004, retry: false },
  conflict: { close: 4000, retry: false },
  too_late: { close: 4000, retry: false },
  recalled: { close: 4000, retry: false },
  dissolved: { close: 4005, retry: false },
  call_unknown: { close: 4005, retry: false },
  call_full: { close: 4004, retry: false },
  call_taken: { close: 4000, retry: false },
  in_call: { close: 4000, retry: false },
  idempotency_in_progress: { close: 4000, retry: true },
  idempotency_mismatch: { close: 4000, retry: false },
  rate_limited: { close: 4501, retry: true },
  busy: { close: 4502, retry: true },
  too_many_connections: { close: 4503, retry: true },
  handshake_timeout: { close: 4504, retry: true },
  idle_timeout: { close: 4505, retry: true },
  slow_consumer: { close: 4506, retry: true },
  going_away: { close: 1001, retry: true },
  unavailable: { close: 4507, retry: true },
  unknown: { close: 4508, retry: true },
  internal: { close: 1011, retry: true },
} as const;

/** A code that a server tells. */
export type ServerErrorCode = keyof typeof errorCodes;

/** All codes that a HalleyError may have: `closed` is the client's own, for what was under way at close(). */
export type ErrorCode = ServerErrorCode | "closed";

/** Returns whether code is of the table. */
export function isErrorCode(code: string): code is ServerErrorCode {
  return Object.hasOwn(errorCodes, code);
}
