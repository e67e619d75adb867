import { type ErrorCode, errorCodes, isErrorCode } from "./codes.ts";
import type * as wire from "./gen/halley/v1/client.ts";

/** Why a request or a connection failed. */
export class HalleyError extends Error {
  override readonly name = "HalleyError";
  /** Stable; programs decide by it. Codes that this version doesn't know count as `internal` where one must decide. */
  readonly code: ErrorCode | (string & {});
  /** Whether the same may succeed later without being changed. */
  readonly retry: boolean;
  /** The least time to wait before the next try, in milliseconds; 0: by one's own back-off. */
  readonly retryAfter: number;

  constructor(code: ErrorCode | (string & {}), message: string, options: { retry?: boolean; retryAfter?: number } = {}) {
    super(message);
    this.code = code;
    this.retry = options.retry ?? (isErrorCode(code) && errorCodes[code].retry);
    this.retryAfter = options.retryAfter ?? 0;
  }

  /** Whether a newer token is the remedy. */
  get isTokenError(): boolean {
    return this.code === "token_expired" || this.code === "token_revoked" || this.code === "unauthenticated";
  }

  /** Makes one of what a server said. */
  static fromWire(e: wire.Error): HalleyError {
    const code = e.code || "internal";
    return new HalleyError(code, e.message || code, { retry: e.retry ?? false, retryAfter: e.retry_after_ms ?? 0 });
  }

  /**
   * Makes one of how a WebSocket was closed. The close codes of the table say whether to come back; whatever else
   * ended the connection, a network's fault (1006) first of all, is `unavailable`.
   */
  static fromClose(closeCode: number, reason: string): HalleyError {
    if (isErrorCode(reason)) return new HalleyError(reason, `closed by the server: ${reason}`);
    for (const [code, row] of Object.entries(errorCodes)) {
      if (row.close === closeCode) return new HalleyError(code, reason || `closed by the server: ${code}`);
    }
    // A code of the table's ranges that is newer than this client.
    if (closeCode >= 4000 && closeCode < 4500) return new HalleyError("internal", reason || `closed with ${closeCode}`, { retry: false });
    return new HalleyError("unavailable", reason || (closeCode === 1006 ? "the connection broke" : `closed with ${closeCode}`));
  }
}
