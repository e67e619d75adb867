/**
 * Calls: ringing, and sound and pictures from each to each. A module of its own, to be loaded when a call begins.
 *
 *     const phone = new Phone(lineOf(chat));
 *     phone.on("ringing", ([call]) => call && phone.answer(call.id, { camera: true }));
 *     phone.on("call", (call) => call?.on("change", () => show(call)));
 *     phone.start();
 *     await phone.dial({ conversation: "d/ann/bob", media: "video" });
 *
 * @module
 */
export * from "./call.ts";
export { type CallInfo, type CallState, infoOf, isAsked, isIn, type Leg, legIn, type LegState, type Sends } from "./info.ts";
export type { Heard } from "./levels.ts";
export { type Line, type LineEvents, lineOf } from "./line.ts";
export { callProblem, LocalMedia, type MediaTrouble, type Slot, type Trouble } from "./media.ts";
export * from "./phone.ts";
export { type RelayFault, type RelayProblem, type RelayReport, type RelayResult, testRelays, type Way } from "./selftest.ts";
export { budget, type Quality } from "./stats.ts";
