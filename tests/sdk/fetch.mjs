// Node's own fetch. usage: node fetch.mjs PROXY_ADDRESS ALIAS
const [proxy, alias] = process.argv.slice(2);
const answer = await fetch(`http://${proxy}/v2/profiles`, {
  headers: { "X-Ads-Account": alias },
});
const profiles = await answer.json();
if (answer.status !== 200 || !profiles[0].profileId) {
  throw new Error(`${answer.status} ${JSON.stringify(profiles)}`);
}
console.log("profiles", profiles.length);
