// Package client is Halley's client for Go programs, with the same behaviour as the SDK for browsers. It has three layers:
//
// Conn is one logged-in connection over TCP or WebSocket: frames in, frames out, heartbeats.
//
// Client keeps a session alive over as many connections as it takes: it comes back when the connection breaks, fetches newer
// tokens, moves to another server when asked to, asks and gets answers.
//
// Chat is Client with conversations: what is stored is handed over in order, once, with nothing missing; what is sent is repeated
// until its outcome is known.
//
// A Client, and a Chat, has one goroutine that owns its state, the one that called Run; handlers are called on it, must not
// wait for anything, and may call all methods that don't. Each connection has two more; all have ended when Run returns.
package client
