import { applyChange, type Entry, isChange } from "./entry.ts";
import type { UserChange } from "./events.ts";
import type { Outgoing } from "./outgoing.ts";
import type { Changes, ChatStorage, KeptEntries, Saved, SavedConversation } from "./storage.ts";

const version = 2;
const stores = ["meta", "conversations", "changes", "outgoing", "entries"];

/** Keeps everything in the browser's IndexedDB, below a name; tabs of one origin that give the same name share it. */
export class IndexedDBStorage implements ChatStorage {
  readonly #name: string;
  #db: Promise<IDBDatabase> | undefined;

  constructor(name: string) {
    this.#name = `halley/${name}`;
  }

  async load(): Promise<Saved> {
    const db = await this.#open();
    const tx = db.transaction(stores);
    const [uid, userChange, conversations, changes, outgoing] = await Promise.all([
      got<string | undefined>(tx.objectStore("meta").get("uid")),
      got<number | undefined>(tx.objectStore("meta").get("userChange")),
      got<SavedConversation[]>(tx.objectStore("conversations").getAll()),
      got<UserChange[]>(tx.objectStore("changes").getAll()),
      // In the order of their keys, which count up.
      got<Outgoing[]>(tx.objectStore("outgoing").getAll()),
    ]);
    return { uid: uid ?? "", userChange: userChange ?? 0, conversations, changes, outgoing };
  }

  async add(outgoing: Outgoing): Promise<void> {
    const tx = (await this.#open()).transaction("outgoing", "readwrite", { durability: "strict" });
    tx.objectStore("outgoing").add(outgoing);
    await done(tx);
  }

  async save(changes: Changes): Promise<void> {
    const tx = (await this.#open()).transaction(stores, "readwrite");
    const meta = tx.objectStore("meta");
    if (changes.uid !== undefined) meta.put(changes.uid, "uid");
    if (changes.userChange !== undefined) meta.put(changes.userChange, "userChange");
    const conversations = tx.objectStore("conversations");
    for (const c of changes.conversations ?? []) conversations.put(c);
    for (const id of changes.gone ?? []) conversations.delete(id);
    for (const c of changes.changes ?? []) tx.objectStore("changes").put(c);
    const entries = tx.objectStore("entries");
    for (const id of changes.gone ?? []) entries.delete(range(id, 0, Infinity));
    for (const kept of changes.entries ?? []) {
      put(entries, kept);
      if (kept.from > 0) entries.delete(range(kept.conversation, 0, kept.from));
    }
    const outgoing = tx.objectStore("outgoing");
    const at = (id: string, then: (key: IDBValidKey) => void) => {
      const request = outgoing.index("id").getKey(id);
      request.onsuccess = () => request.result !== undefined && then(request.result);
    };
    for (const o of changes.outgoing ?? []) at(o.id, (key) => outgoing.put(o, key));
    for (const id of changes.done ?? []) at(id, (key) => outgoing.delete(key));
    await done(tx);
  }

  async entries(conversation: string, before: number, limit: number): Promise<Entry[]> {
    const tx = (await this.#open()).transaction("entries");
    const all = await got<Entry[]>(tx.objectStore("entries").getAll(range(conversation, 0, before)));
    let first = all.length;
    while (first > 0 && all.length - first < limit && (first === all.length || all[first - 1]!.seq === all[first]!.seq - 1)) first--;
    return all.slice(first);
  }

  async clear(): Promise<void> {
    const tx = (await this.#open()).transaction(stores, "readwrite");
    for (const name of stores) tx.objectStore(name).clear();
    await done(tx);
  }

  close(): void {
    void this.#db?.then((db) => db.close());
    this.#db = undefined;
  }

  #open(): Promise<IDBDatabase> {
    this.#db ??= new Promise<IDBDatabase>((resolve, reject) => {
      const request = indexedDB.open(this.#name, version);
      request.onupgradeneeded = ({ oldVersion }) => {
        const db = request.result;
        if (oldVersion < 1) {
          db.createObjectStore("meta");
          db.createObjectStore("conversations", { keyPath: "conversation.id" });
          db.createObjectStore("changes", { keyPath: ["kind", "object"] });
          db.createObjectStore("outgoing", { autoIncrement: true }).createIndex("id", "id", { unique: true });
        }
        // By conversation and seq.
        db.createObjectStore("entries");
      };
      request.onsuccess = () => {
        const db = request.result;
        // A newer version of the page in another tab: it must not wait for this one.
        db.onversionchange = () => this.close();
        resolve(db);
      };
      request.onerror = () => reject(request.error);
    });
    // What failed now may work later.
    this.#db.catch(() => (this.#db = undefined));
    return this.#db;
  }
}

/** From seq to the one before end. */
function range(conversation: string, seq: number, end: number): IDBKeyRange {
  return IDBKeyRange.bound([conversation, seq], [conversation, end], false, true);
}

/** Keeps entries, unless what is kept is newer; what changes a message goes into it. */
function put(store: IDBObjectStore, { conversation, entries, from }: KeptEntries): void {
  // A request sees nothing of what another one's answer leads to: all that concerns one row goes together.
  const rows = new Map<number, Entry[]>();
  for (const e of entries) {
    const change = isChange(e.kind);
    // What was said before an edit or a recall stays nowhere.
    if (change) store.put({ ...e, body: null }, [conversation, e.seq]);
    const seq = change ? e.target : e.seq;
    if (seq >= from) rows.set(seq, [...(rows.get(seq) ?? []), e]);
  }
  for (const [seq, happened] of rows) {
    const request = store.get([conversation, seq]);
    request.onsuccess = () => {
      const old = request.result as Entry | undefined;
      let now = old;
      for (const e of happened) {
        if (isChange(e.kind)) now &&= applyChange(now, e);
        else if (!now || e.changedSeq > now.changedSeq) now = e;
      }
      if (now && now !== old) store.put(now, [conversation, seq]);
    };
  }
}

function got<T>(request: IDBRequest): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result as T);
    request.onerror = () => reject(request.error);
  });
}

function done(tx: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    tx.oncomplete = () => resolve();
    tx.onerror = tx.onabort = () => reject(tx.error);
  });
}
