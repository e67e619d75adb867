import { chromium } from "playwright-core";
const url="http://127.0.0.1:4911";
const b = await chromium.launch({executablePath:"/usr/bin/chromium",args:["--no-sandbox","--disable-gpu"]});
const shot=(p,n)=>p.screenshot({path:`/tmp/hx/${n}.png`});
async function enter(name, o={}) {
  const c=await b.newContext({viewport:{width:1280,height:800},locale:"en-GB",...o});
  const p=await c.newPage(); p.setDefaultTimeout(10000);
  p.on("console",m=>{if(["error","warning"].includes(m.type()))console.log(name,"console:",m.text())}); p.on("pageerror",e=>console.log(name,"pageerror",e.message));
  await p.goto(url); await p.getByLabel(/Your name|你的名字/).fill(name); await p.keyboard.press("Enter");
  await p.locator("[role=status][data-state=online]").waitFor({state:"attached"});
  return p;
}
const ann=await enter("ann"), bob=await enter("bob",{colorScheme:"dark"}), cy=await enter("cy",{locale:"zh-CN",viewport:{width:390,height:780},hasTouch:true,isMobile:true,deviceScaleFactor:2});
await shot(ann,"01-empty"); await shot(cy,"01-empty-phone");
await ann.getByRole("button",{name:"New…"}).click(); await shot(ann,"02-menu");
await ann.getByRole("menuitem",{name:"Add contact"}).click();
await ann.getByRole("searchbox",{name:"Name or id"}).fill("bob"); await ann.getByRole("dialog").locator(".person",{hasText:"bob"}).waitFor(); await shot(ann,"03-find");
await ann.getByRole("dialog").getByRole("button",{name:"Message"}).click();
const box=p=>p.locator(".composer textarea");
for (const t of ["Hello Bob!","Here is a longer message that should wrap over more than a single line, because people do write at length when they have something to say about the evening sky.","https://en.wikipedia.org/wiki/Halley%27s_Comet?very=long&query=string&that=never&ends=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","multi\nline\n\ntext","🎉","你好，今晚一起看彗星吗？"]) { await box(ann).fill(t); await ann.keyboard.press("Enter"); await ann.waitForTimeout(150);} 
await bob.locator(".list .line").first().click(); await bob.waitForTimeout(800);
await box(bob).fill("Yes — tonight?"); await shot(ann,"04-typing"); await bob.keyboard.press("Enter"); await bob.waitForTimeout(500);
await shot(ann,"05-ann"); await shot(bob,"05-bob-dark");
// reload
await ann.reload(); await ann.waitForTimeout(400); await shot(ann,"06-reload");
await ann.locator(".list .line").first().click(); await ann.waitForTimeout(100); await shot(ann,"07-reopened");
// group
await ann.getByRole("button",{name:"New…"}).click(); await ann.getByRole("menuitem",{name:"New group"}).click(); await shot(ann,"08-newgroup");
const d=ann.getByRole("dialog",{name:"New group"});
for (const n of ["bob","cy"]) { await d.getByRole("searchbox").fill(n); await ann.keyboard.press("Enter"); await ann.waitForTimeout(200);} await shot(ann,"09-newgroup");
await d.getByRole("button",{name:"Create"}).click(); await ann.waitForTimeout(1000); await shot(ann,"10-group");
await cy.locator(".list .line").first().click(); await cy.waitForTimeout(600); await shot(cy,"11-phone-group");
await box(cy).fill("大家好！"); await cy.locator(".send").click(); await cy.waitForTimeout(500); await shot(cy,"12-phone-group");
await ann.getByRole("button",{name:"Details"}).click(); await ann.waitForTimeout(600); await shot(ann,"13-details");
await cy.getByRole("button",{name:/详情|更多|信息/}).first().click().catch(()=>{}); await cy.waitForTimeout(500); await shot(cy,"14-phone-details");
await ann.getByRole("button",{name:"Settings",exact:true}).click(); await ann.waitForTimeout(400); await shot(ann,"15-settings"); await ann.keyboard.press("Escape");
await ann.getByRole("button",{name:/^Contacts/}).click(); await ann.waitForTimeout(300); await shot(ann,"16-contacts");
// admin
import fs from "node:fs";
const ac=await b.newContext({viewport:{width:1280,height:800},locale:"en-GB"}); const ad=await ac.newPage(); await ad.goto(url+"/admin"); await ad.getByLabel(/^API key/).fill(fs.readFileSync("/tmp/hx/data/api-key","utf8").trim()); await ad.keyboard.press("Enter"); await ad.waitForTimeout(800); await shot(ad,"20-admin");
await ad.locator(".item-head").first().click(); await ad.waitForTimeout(500); await shot(ad,"21-admin-person");
// offline reload by SW
await bob.waitForTimeout(500);
await bob.context().setOffline(true); await bob.waitForTimeout(1200); await shot(bob,"30-offline");
await bob.reload(); await bob.waitForTimeout(1500); await shot(bob,"31-offline-reload");
await bob.locator(".list .line").last().click(); await bob.waitForTimeout(500); await shot(bob,"32-offline-open");
await bob.context().setOffline(false); await bob.waitForTimeout(3000); await shot(bob,"33-back");
await b.close();
