import { applyChange, type Entry, isChange } from "./entry.ts";
import type { UserChange } from "./events.ts";
import type { Outgoing } from "./outgoing.ts";
import type { Changes, ChatStorage, KeptEntries, Saved, SavedConversation } from "./storage.ts";

const version = 2;
const stores = ["meta", "conversations", "changes", "outgoing", "entries"];
/** How long a browser's database may take, in ms. Some never answer any more, and nothing else is to wait for that. */
const patience = 5000;

/**
 * Keeps everything in the browser's IndexedDB, below a name; tabs of one origin that give the same name share it. Every call fails if the database
 * doesn't answer within 5 s; one that the browser has closed is opened again.
 */
export class IndexedDBStorage implements ChatStorage {
  readonly #name: string;
  #db: Promise<IDBDatabase> | undefined;

  constructor(name: string) {
    this.#name = `halley/${name}`;
  }

  async load(): Promise<Saved> {
    const [uid, userChange, conversations, changes, outgoing] = await this.#run(stores, {}, (tx) =>
      Promise.all([
        got<string | undefined>(tx.objectStore("meta").get("uid")),
        got<number | undefined>(tx.objectStore("meta").get("userChange")),
        got<SavedConversation[]>(tx.objectStore("conversations").getAll()),
        got<UserChange[]>(tx.objectStore("changes").getAll()),
        // In the order of their keys, which count up.
        got<Outgoing[]>(tx.objectStore("outgoing").getAll()),
      ]),
    );
    return { uid: uid ?? "", userChange: userChange ?? 0, conversations, changes, outgoing };
  }

  async add(outgoing: Outgoing): Promise<void> {
    await this.#run(["outgoing"], { mode: "readwrite", durability: "strict" }, (tx) => {
      tx.objectStore("outgoing").add(outgoing);
      return done(tx);
    });
  }

  async save(changes: Changes): Promise<void> {
    await this.#run(stores, { mode: "readwrite" }, (tx) => saveIn(tx, changes));
  }

  async entries(conversation: string, before: number, limit: number): Promise<Entry[]> {
    const all = await this.#run(["entries"], {}, (tx) => got<Entry[]>(tx.objectStore("entries").getAll(range(conversation, 0, before))));
    let first = all.length;
    while (first > 0 && all.length - first < limit && (first === all.length || all[first - 1]!.seq === all[first]!.seq - 1)) first--;
    return all.slice(first);
  }

  async clear(): Promise<void> {
    await this.#run(stores, { mode: "readwrite" }, (tx) => {
      for (const name of stores) tx.objectStore(name).clear();
      return done(tx);
    });
  }

  close(): void {
    void this.#db?.then(
      (db) => db.close(),
      () => {},
    );
    this.#db = undefined;
  }

  /** Does something in a transaction, which begins it in the same breath. */
  async #run<T>(names: string[], how: IDBTransactionOptions & { mode?: IDBTransactionMode }, work: (tx: IDBTransaction) => Promise<T>): Promise<T> {
    const begin = (db: IDBDatabase) => work(db.transaction(names, how.mode, how));
    let db = await this.#open();
    let doing: Promise<T>;
    try {
      doing = begin(db);
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "InvalidStateError")) throw error;
      // Browsers close it when they are short of something, and don't always say so.
      this.close();
      db = await this.#open();
      doing = begin(db);
    }
    return await soon(doing, () => this.close());
  }

  #open(): Promise<IDBDatabase> {
    if (this.#db) return this.#db;
    const request = indexedDB.open(this.#name, version);
    const opened = new Promise<IDBDatabase>((resolve, reject) => {
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
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    const db = (this.#db = soon(opened));
    const over = () => {
      if (this.#db === db) this.#db = undefined;
    };
    opened.then(
      (base) => {
        // A newer version of the page in another tab: it must not wait for this one.
        base.onversionchange = () => {
          base.close();
          over();
        };
        base.onclose = over;
        // One that came late was given up; what is asked from now on has it. Until then all is refused at once.
        db.catch(() => {
          base.close();
          over();
        });
      },
      // What failed now may work later.
      over,
    );
    db.catch(() => {});
    return db;
  }
}

/** What comes of a promise, or an error if that takes too long, after late. */
async function soon<T>(doing: Promise<T>, late = (): void => {}): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const over = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      late();
      reject(new DOMException("the browser's database does not answer", "TimeoutError"));
    }, patience);
  });
  try {
    return await Promise.race([doing, over]);
  } finally {
    clearTimeout(timer);
  }
}

function saveIn(tx: IDBTransaction, changes: Changes): Promise<void> {
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
  return done(tx);
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
