import type { Method, Params } from "../connection.ts";
import type { HalleyError } from "../error.ts";

/**
 * What has become of something that was sent:
 *
 * - `sending`: on its way, or waiting for a connection or for those before it in its conversation
 * - `accepted`: the server will tell what becomes of it
 * - `stored`: it has its place in the conversation, for good
 * - `delivered`, `read`: the other side's devices have got it, or it was read there; in direct conversations only
 * - `failed`: it never got a place and never will; it stays until it is sent anew or discarded
 */
export type Stage = "sending" | "accepted" | "stored" | "delivered" | "read" | "failed";

/** Requests that have an outcome under their client_msg_id. That of group.answer, where it declines, is no entry. */
export type ChangeMethod = Exclude<{ [M in Method]: "client_msg_id" extends keyof Params<M> ? M : never }[Method], "group.answer">;

/** Something that was sent: a message or a change. */
export interface Outgoing<M extends ChangeMethod = ChangeMethod> {
  /** Its client_msg_id. */
  id: string;
  /** Empty for a group that is being made until the server has given it an id. */
  conversation: string;
  method: M;
  params: Params<M>;
  stage: Stage;
  /** When it was sent, in milliseconds since 1970 by this machine's clock. */
  at: number;
  /** Its place, once it is stored. */
  seq: number;
  /** Why it failed, or what keeps it from being sent for now. */
  error: { code: string; message: string } | undefined;
}

export function errorOf(error: HalleyError): { code: string; message: string } {
  return { code: error.code, message: error.message };
}

/** Returns 128 random bits as text. */
export function newId(): string {
  // randomUUID is for secure contexts only.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}
