/**
 * Halley's client: conversations, rooms, pushes and presence over a WebSocket, in browsers and in Node.
 *
 *     const client = new Client({ url: "wss://im.example.org/sub", token: () => fetchToken() });
 *     client.on("message", ({ from, body }) => console.log(from, body));
 *     client.connect();
 *     await client.join("chat://lobby");
 *     await client.say("chat://lobby", "hello");
 *
 * @module
 */
export * from "./chat/chat.ts";
export { type Conversation, directId, peerOf } from "./chat/conversation.ts";
export { applyChange, type Entry, entryOf, type GroupInfo, isChange, type JsonValue, type Reaction } from "./chat/entry.ts";
export { IndexedDBStorage } from "./chat/indexeddb.ts";
export type { ChangeMethod, Outgoing, Stage } from "./chat/outgoing.ts";
export type { Entries, Marker, SpeakerEvents as ChatEvents, SpeakerOptions, Typing, UserChange } from "./chat/events.ts";
export { type Changes, type ChatStorage, type KeptEntries, MemoryStorage, type Saved, type SavedConversation } from "./chat/storage.ts";
export { Timeline } from "./chat/timeline.ts";
export { type BackoffOptions, backoff, defaultBackoff } from "./backoff.ts";
export * from "./client.ts";
export { ServerClock } from "./clock.ts";
export * from "./codes.ts";
export * from "./connection.ts";
export { HalleyError } from "./error.ts";
export * as frame from "./frame.ts";
export type { WebSocketConstructor, WebSocketLike } from "./link.ts";
export type * as wire from "./gen/halley/v1/client.ts";
