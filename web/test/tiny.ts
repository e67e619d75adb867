import type { Server } from "node:http";
import { type WebSocket, WebSocketServer } from "ws";
import { encode, Op, parse } from "../sdk/src/frame.ts";

/** The conversation. */
export const D = "d/ann/bob";

/** A server with one conversation. */
export class Tiny {
  /** Who is connected; a token is a uid here. */
  readonly sockets = new Map<WebSocket, string>();
  entries: object[] = [];
  /** client_msg_ids in the order in which they first came, and how often each came. */
  readonly ids = new Map<string, number>();
  /** Whether messages are answered. */
  silent = false;
  connections = 0;

  constructor(server: Server) {
    new WebSocketServer({ server, path: "/sub" }).on("connection", (socket) => {
      this.sockets.set(socket, "");
      this.connections++;
      socket.on("close", () => this.sockets.delete(socket));
      socket.on("error", () => {});
      socket.on("message", (data: Buffer) => {
        const { frame } = parse(new Uint8Array(data));
        const body = frame.body.length > 0 ? JSON.parse(new TextDecoder().decode(frame.body)) : {};
        this.#frame(socket, frame.op, frame.seq, body);
      });
    });
  }

  store(from: string, id: string, body: unknown): void {
    const seq = this.entries.length + 1;
    const entry = { seq, kind: "message", from, client_msg_id: id, server_time: Date.now(), msg_no: seq, changed_seq: seq, body };
    this.entries.push(entry);
    for (const socket of this.sockets.keys()) this.#send(socket, Op.Event, 0, { "message.stored": { conversation: D, entry } });
  }

  #frame(socket: WebSocket, op: number, seq: number, body: any): void {
    if (op === Op.Heartbeat) this.#send(socket, Op.HeartbeatReply, seq);
    else if (op === Op.Auth) {
      this.sockets.set(socket, body.token);
      this.#send(socket, Op.AuthReply, seq, { uid: body.token, connection: "c", heartbeat: 30, server_time: Date.now() });
    } else if (body.sync) {
      const have = body.sync.conversations?.[D] ?? 0;
      const entries = this.entries.slice(have);
      const conversation = { id: D, type: "direct", last_seq: this.entries.length, role: "member", members: 2, visible_from: 1, last: this.entries.at(-1) };
      this.#send(socket, Op.Reply, seq, { sync: entries.length > 0 ? { conversations: [{ conversation, entries }] } : {} });
    } else if (body["conversation.history"]) this.#send(socket, Op.Reply, seq, { "conversation.history": { entries: this.entries } });
    else if (body["message.send"]) {
      const { client_msg_id: id, body: content } = body["message.send"];
      const times = (this.ids.get(id) ?? 0) + 1;
      this.ids.set(id, times);
      if (this.silent) return;
      this.#send(socket, Op.Reply, seq, { "message.send": { id: "x", accepted_at: Date.now() } });
      if (!this.entries.some((e) => (e as { client_msg_id: string }).client_msg_id === id)) this.store(this.sockets.get(socket) ?? "", id, content);
    } else if (body["conversation.read"]) this.#send(socket, Op.Reply, seq, { "conversation.read": {} });
    else this.#send(socket, Op.Reply, seq, { error: { code: "unknown_method", message: "no" } });
  }

  #send(socket: WebSocket, op: number, seq: number, body?: unknown): void {
    socket.send(encode(op, seq, body === undefined ? undefined : new TextEncoder().encode(JSON.stringify(body))));
  }
}
