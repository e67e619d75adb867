import { chromium } from "playwright-core";
const url="http://127.0.0.1:4911";
const b = await chromium.launch({executablePath:"/usr/bin/chromium",args:["--no-sandbox","--disable-gpu"]});
const t0=Date.now();
async function enter(name) {
  const c=await b.newContext({viewport:{width:1280,height:800},locale:"en-GB",serviceWorkers:"block"});
  const p=await c.newPage(); p.setDefaultTimeout(10000);
  const dec=d=>{ try{ return Buffer.from(d).toString().replace(/[^\x20-\x7e]+/g,".") }catch{return ""}};
  p.on("websocket",w=>{w.on("framesent",f=>/presence/.test(dec(f.payload))&&console.log(Date.now()-t0,name,">",dec(f.payload).slice(0,200)));w.on("framereceived",f=>/presence/.test(dec(f.payload))&&console.log(Date.now()-t0,name,"<",dec(f.payload).slice(0,300)))});
  await p.goto(url); await p.getByLabel(/Your name/).fill(name); await p.keyboard.press("Enter");
  await p.locator("[role=status][data-state=online]").waitFor({state:"attached"});
  return p;
}
let ann=await enter("ann"), bob=await enter("bob");
await ann.getByRole("button",{name:"New…"}).click(); await ann.getByRole("menuitem",{name:"Add contact"}).click();
await ann.getByRole("searchbox",{name:"Name or id"}).fill("bob"); await ann.getByRole("dialog").locator(".person",{hasText:"bob"}).waitFor();
await ann.getByRole("dialog").getByRole("button",{name:"Add",exact:true}).click();
await ann.getByRole("dialog",{name:"Add bob"}).getByRole("button",{name:"Add"}).click();
await bob.getByRole("button",{name:/^Contacts/}).click(); await bob.locator(".line",{hasText:"Requests"}).click(); await bob.getByRole("button",{name:"Accept"}).click();
await ann.waitForTimeout(1000);
console.log(Date.now()-t0,"close bob"); await bob.context().close(); await ann.waitForTimeout(6000);
console.log(Date.now()-t0,"bob again"); bob=await enter("bob"); await ann.waitForTimeout(4000);
await b.close();
