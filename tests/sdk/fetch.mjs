// Node's own fetch. usage: node fetch.mjs PROXY_ADDRESS ALIAS SECONDS     calls on for SECONDS
const [proxy, alias, seconds] = process.argv.slice(2);
const deadline = Date.now() + seconds * 1000;
let rounds = 0;
do {
  const answer = await fetch(`http://${proxy}/v2/profiles`, {
    headers: { "X-Ads-Account": alias },
  });
  const profiles = await answer.json();
  if (answer.status !== 200 || !profiles[0].profileId) {
    throw new Error(`${answer.status} ${JSON.stringify(profiles)}`);
  }
  rounds += 1;
  await new Promise((resolve) => setTimeout(resolve, 50));
} while (Date.now() < deadline);
console.log("rounds", rounds);
