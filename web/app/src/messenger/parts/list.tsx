// The virtual lists, with Preact's types: the library's are React's.
import type { ComponentChildren, Ref, RefObject, VNode } from "preact";
import { VList, type VListHandle, Virtualizer, type VirtualizerHandle } from "virtua";

export type { VListHandle, VirtualizerHandle };

interface Common<T> {
  data: readonly T[];
  children: (item: T, index: number) => VNode;
  itemSize?: number;
  bufferSize?: number;
  /** Only in the rendering in which something came or went in front. */
  shift?: boolean;
}

/** A list that scrolls by itself. */
export const List = VList as unknown as <T>(props: Common<T> & { ref?: Ref<VListHandle>; class?: string }) => VNode;

/** A list in something that scrolls. */
export const Rows = Virtualizer as unknown as <T>(
  props: Common<T> & { ref?: Ref<VirtualizerHandle>; scrollRef: RefObject<HTMLElement | null>; children: (item: T, index: number) => ComponentChildren },
) => VNode;
