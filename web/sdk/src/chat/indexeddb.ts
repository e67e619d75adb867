import type { UserChange } from "./events.ts";
import type { Outgoing } from "./outgoing.ts";
import type { Changes, ChatStorage, Saved, SavedConversation } from "./storage.ts";

const version = 1;
const stores = ["meta", "conversations", "changes", "outgoing"];

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
    const outgoing = tx.objectStore("outgoing");
    const at = (id: string, then: (key: IDBValidKey) => void) => {
      const request = outgoing.index("id").getKey(id);
      request.onsuccess = () => request.result !== undefined && then(request.result);
    };
    for (const o of changes.outgoing ?? []) at(o.id, (key) => outgoing.put(o, key));
    for (const id of changes.done ?? []) at(id, (key) => outgoing.delete(key));
    await done(tx);
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
      request.onupgradeneeded = () => {
        request.result.createObjectStore("meta");
        request.result.createObjectStore("conversations", { keyPath: "conversation.id" });
        request.result.createObjectStore("changes", { keyPath: ["kind", "object"] });
        request.result.createObjectStore("outgoing", { autoIncrement: true }).createIndex("id", "id", { unique: true });
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
