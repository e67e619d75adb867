import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { type WebSocket, WebSocketServer } from "ws";
import { encode, type Frame, Op, parse } from "../src/frame.ts";

/** A request that a client sent and no step has expected yet. */
export interface Asked {
  connection: ScriptedConnection;
  op: number;
  seq: number;
  json: unknown;
}

const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

/** One connection of the scripted server. */
export class ScriptedConnection {
  auth: Frame | undefined;
  constructor(
    readonly socket: WebSocket,
    server: ScriptedServer,
  ) {
    socket.on("message", (data: Buffer) => {
      const { frame } = parse(new Uint8Array(data));
      if (frame.op === Op.Auth) {
        this.auth = frame;
        server.changed();
      } else if (frame.op === Op.Heartbeat) this.send(encode(Op.HeartbeatReply, frame.seq));
      else {
        const body = new TextDecoder().decode(frame.body);
        server.asked.push({ connection: this, op: frame.op, seq: frame.seq, json: JSON.parse(body) });
        server.changed();
      }
    });
    socket.on("error", () => {});
  }

  answer(op: number, seq: number, body: unknown): void {
    this.send(encode(op, seq, text(body)));
  }

  /** Sends events in one batch; cut at these bytes into fragments of the WebSocket message. */
  events(events: unknown[], cut: number[] = []): void {
    const inner = events.map((event) => encode(Op.Event, 0, text(event)));
    this.send(encode(Op.Batch, 0, new Uint8Array(Buffer.concat(inner))), cut);
  }

  send(bytes: Uint8Array, cut: number[] = []): void {
    const ends = [...cut.filter((at) => at < bytes.length), bytes.length];
    let from = 0;
    for (const to of ends) {
      this.socket.send(bytes.subarray(from, to), { binary: true, fin: to === bytes.length });
      from = to;
    }
  }
}

/** A server that does what a scenario says, and nothing else but answering heartbeats. */
export class ScriptedServer {
  readonly asked: Asked[] = [];
  /** Connections that have sent their auth frame and were not accepted yet are among them. */
  readonly connections: ScriptedConnection[] = [];
  readonly #http: Server = createServer();
  readonly #ws = new WebSocketServer({ server: this.#http });
  readonly #waiting = new Set<() => void>();

  async listen(): Promise<string> {
    this.#ws.on("connection", (socket) => this.connections.push(new ScriptedConnection(socket, this)));
    await new Promise<void>((resolve) => this.#http.listen(0, "127.0.0.1", resolve));
    return `ws://127.0.0.1:${(this.#http.address() as AddressInfo).port}/sub`;
  }

  async close(): Promise<void> {
    for (const c of this.connections) c.socket.terminate();
    this.#ws.close();
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  changed(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  /** Waits until look finds something. what says what is missing when it doesn't. */
  async until<T>(look: () => T | undefined, what: () => string, limit = 20_000): Promise<T> {
    const end = Date.now() + limit;
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      if (Date.now() > end) throw new Error(what());
      await new Promise<void>((resolve) => {
        const wake = () => {
          clearTimeout(timer);
          this.#waiting.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, Math.min(50, limit));
        this.#waiting.add(wake);
      });
    }
  }
}
