import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { clientLimit, encode, type Frame, FrameError, HEADER_LEN, handshakeLimit, Op, parse, parseBatch, parseMessage } from "../src/frame.ts";

interface Vector {
  name: string;
  hex: string;
  ver: number;
  op: number;
  seq: number;
  body: string;
  pad?: number;
}

// The same file that holds the Go codec; its doc says what the fields mean.
const vectors = JSON.parse(readFileSync(new URL("../../../proto/testdata/frames.json", import.meta.url), "utf8")) as {
  frames: Vector[];
  incomplete: { name: string; hex: string; need: number }[];
  bad: { name: string; hex: string; limit: keyof typeof limits; error: string }[];
  batches: { name: string; hex: string; frames: Vector[] }[];
  bad_batches: { name: string; hex: string; good: number; error: string }[];
};

const limits = { none: undefined, handshake: handshakeLimit, client: clientLimit };

function bytes(hex: string, pad = 0): Uint8Array {
  const head = Buffer.from(hex, "hex");
  const out = new Uint8Array(head.length + pad).fill(0x61);
  out.set(head);
  return out;
}

function hex(b: Uint8Array): string {
  return Buffer.from(b).toString("hex");
}

function plain(f: Frame) {
  return { ver: f.ver, op: f.op, seq: f.seq, body: hex(f.body) };
}

function failure(run: () => unknown): FrameError {
  try {
    run();
  } catch (error) {
    if (error instanceof FrameError) return error;
    throw error;
  }
  throw new Error("no error");
}

describe("vectors", () => {
  it.each(vectors.frames)("$name", (v) => {
    const want = bytes(v.hex, v.pad);
    const body = bytes(v.body, v.pad);
    const { frame, length } = parse(Buffer.concat([want, bytes("ffff")]));
    expect(length).toBe(want.length);
    expect(plain(frame)).toEqual({ ver: v.ver, op: v.op, seq: v.seq, body: hex(body) });
    expect(hex(encode(v.op, v.seq, body, v.ver))).toBe(hex(want));
  });

  it.each(vectors.incomplete)("incomplete: $name", (v) => {
    expect(failure(() => parse(bytes(v.hex)))).toMatchObject({ kind: "incomplete", need: v.need });
  });

  it.each(vectors.bad)("bad: $name", (v) => {
    expect(v.limit in limits).toBe(true);
    expect(failure(() => parse(bytes(v.hex), limits[v.limit])).kind).toBe(v.error);
  });

  it.each(vectors.batches)("batch: $name", (v) => {
    const want = v.frames.map(({ ver, op, seq, body }) => ({ ver, op, seq, body }));
    expect([...parseMessage(bytes(v.hex))].map(plain)).toEqual(want);
    const inner = v.frames.map((f) => encode(f.op, f.seq, bytes(f.body), f.ver));
    expect(hex(encode(Op.Batch, 0, Buffer.concat(inner)))).toBe(v.hex);
  });

  it.each(vectors.bad_batches)("bad batch: $name", (v) => {
    let good = 0;
    const error = failure(() => {
      for (const _ of parseBatch(bytes(v.hex).subarray(HEADER_LEN))) good++;
    });
    expect(error.kind).toBe(v.error);
    expect(good).toBe(v.good);
  });
});

describe("codec", () => {
  it("admits exactly what the limits say", () => {
    for (const v of vectors.frames) {
      const b = bytes(v.hex, v.pad);
      const fits = b.length - HEADER_LEN <= clientLimit(v.op);
      if (fits) expect(() => parse(b, clientLimit)).not.toThrow();
      else expect(failure(() => parse(b, clientLimit)).kind).toBe("too_large");
    }
  });

  it("finds every cut of a frame incomplete", () => {
    const b = encode(1000, 1, bytes("0102030405"));
    for (let cut = 0; cut < b.length; cut++) {
      expect(failure(() => parse(b.subarray(0, cut)))).toMatchObject({ kind: "incomplete", need: cut < HEADER_LEN ? 0 : b.length });
    }
  });

  it("parses in the middle of a larger buffer", () => {
    const b = Buffer.concat([bytes("ffffff"), encode(1000, 7, bytes("0a"))]);
    expect(plain(parse(new Uint8Array(b.buffer, b.byteOffset + 3, b.length - 3)).frame)).toEqual({ ver: 1, op: 1000, seq: 7, body: "0a" });
  });

  it("refuses numbers that don't fit their fields", () => {
    expect(() => encode(2 ** 31, 0)).toThrow(RangeError);
    expect(() => encode(1000, 1.5)).toThrow(RangeError);
    expect(() => encode(1000, 0, new Uint8Array(), 32768)).toThrow(RangeError);
  });

  it("reads a single frame as a message of one", () => {
    expect([...parseMessage(encode(Op.Reply, 3, bytes("7b7d")))].map(plain)).toEqual([{ ver: 1, op: 101, seq: 3, body: "7b7d" }]);
  });

  it("either refuses random bytes or gives back what they were", () => {
    let x = 1;
    const random = () => (x = (x * 48271) % 2147483647) / 2147483647;
    let parsed = 0;
    for (let i = 0; i < 20_000; i++) {
      const b = new Uint8Array(Math.floor(random() * 40)).map(() => Math.floor(random() * 256));
      // Mostly near the truth, else no input would get beyond the header.
      if (random() < 0.9 && b.length >= 16) b.set([0, 0, 0, Math.floor(random() * 40), 0, 16]);
      try {
        const { frame, length } = parse(b);
        expect(hex(encode(frame.op, frame.seq, frame.body, frame.ver))).toBe(hex(b.subarray(0, length)));
        parsed++;
      } catch (error) {
        expect(error).toBeInstanceOf(FrameError);
      }
    }
    expect(parsed).toBeGreaterThan(1000);
  });
});
