// The examples of the README of @nftstorage/ipfs-cluster (npm), one after the other, against a running peer; and every
// other method that this release has.
import assert from 'node:assert/strict'
import { File } from 'node:buffer'
import { createHash } from 'node:crypto'
import { Cluster } from '@nftstorage/ipfs-cluster'

const [url, user, password] = process.argv.slice(2)
const headers = { Authorization: 'Basic ' + Buffer.from(`${user}:${password}`).toString('base64') }
const cluster = new Cluster(url, { headers })
// The README says so for Node; the release looks for it in the global environment.
Object.assign(globalThis, { File })

// The CIDs that the README gives: of "foo" and "bar" as they are without raw leaves, and of "foo" with them.
const FOO = 'bafybeigpsl667todjswabhelaxvwmk7amgg3txsv5tkcpbpj5rtrf6g7mu'
const BAR = 'bafybeidsnna57jpm2ttwaydwak25qpkxafrg4cnrjsfqipbcqxlsfobjje'
const RAW_FOO = 'bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy'

const untried = new Set(Object.getOwnPropertyNames(Cluster.prototype))
untried.delete('constructor')

async function example (method, title, run) {
  untried.delete(method)
  const said = await run()
  console.log(`  ${title.padEnd(32)} ${said}`)
}

async function until (what, holds) {
  let seen
  for (const end = Date.now() + 60_000; Date.now() < end;) {
    seen = await holds()
    if (seen.ok) return seen.found
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error(`${what}: not within a minute; last ${JSON.stringify(seen)}`)
}

/** A CAR of version 1 with one raw block, and the CID of that. */
function car (text) {
  const block = Buffer.from(text)
  const digest = createHash('sha256').update(block).digest()
  const cid = Buffer.concat([Buffer.from([1, 0x55, 0x12, 32]), digest])
  const header = Buffer.concat([
    Buffer.from([0xa2, 0x65]), Buffer.from('roots'), Buffer.from([0x81, 0xd8, 0x2a, 0x58, cid.length + 1, 0]), cid,
    Buffer.from([0x67]), Buffer.from('version'), Buffer.from([1])
  ])
  return Buffer.concat([Buffer.from([header.length]), header, Buffer.from([cid.length + block.length]), cid, block])
}

await example('version', 'version, without the password', async () => {
  await assert.rejects(new Cluster(url).version(), (error) => error.response.status === 401)
  return '401'
})
await example('version', 'version', async () => {
  const version = await cluster.version()
  assert.match(version, /^\d+\.\d+\.\d+/)
  return version
})
let self
await example('info', 'info', async () => {
  self = await cluster.info()
  assert.ok(self.id && self.peerName && self.addresses.length > 0 && self.ipfs.id)
  return self.id
})
await example('add', 'add', async () => {
  const { cid, name, size } = await cluster.add(new File(['foo'], 'foo.txt'))
  assert.equal(cid, RAW_FOO)
  assert.equal(name, 'foo.txt')
  return `${cid}, ${size} bytes`
})
await example('add', 'add, without raw leaves', async () => {
  const { cid } = await cluster.add(new File(['foo'], 'foo.txt'), { rawLeaves: false })
  assert.equal(cid, FOO)
  return cid
})
await example('add', 'add, with a name and metadata', async () => {
  const { cid } = await cluster.add(new File(['foo'], 'foo.txt'), { name: 'a name', metadata: { hello: 'world' } })
  const pin = await cluster.allocation(cid)
  assert.deepEqual([pin.name, pin.metadata], ['a name', { hello: 'world' }])
  return pin.name
})
const files = [new File(['foo'], 'foo.txt'), new File(['bar'], 'bar.txt')]
await example('addDirectory', 'addDirectory', async () => {
  const entries = await cluster.addDirectory(files)
  assert.deepEqual(entries.map((entry) => entry.name), ['foo.txt', 'bar.txt', ''])
  assert.equal(entries[0].cid, RAW_FOO)
  return entries.map((entry) => entry.cid).join(' ')
})
await example('addDirectory', 'addDirectory, without raw leaves', async () => {
  const entries = await cluster.addDirectory(files, { rawLeaves: false })
  assert.deepEqual(entries.map((entry) => entry.cid).slice(0, 2), [FOO, BAR])
  return entries.map((entry) => entry.cid).join(' ')
})
await example('addCAR', 'addCAR', async () => {
  const { cid } = await cluster.addCAR(new Blob([car('foo')], { type: 'application/car' }))
  assert.equal(cid, RAW_FOO)
  return cid
})
await example('allocation', 'allocation', async () => {
  const pin = await cluster.allocation(FOO)
  assert.deepEqual([pin.cid, pin.replicationFactorMin, pin.mode], [FOO, -1, 'recursive'])
  return `${pin.mode}, everywhere`
})
await example('allocation', 'allocation of what is not pinned', async () => {
  const strange = 'bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e'
  await assert.rejects(cluster.allocation(strange), (error) => error.response.status === 404)
  return '404'
})
await example('metricNames', 'metricNames', async () => {
  return until('ping and freespace', async () => {
    const names = await cluster.metricNames()
    return { ok: names.includes('ping') && names.includes('freespace'), found: names }
  })
})
await example('peerList', 'peerList', async () => {
  const peers = await cluster.peerList()
  assert.deepEqual(peers.map((peer) => peer.id), [self.id])
  const [peer] = peers
  assert.ok(peer.addresses.length > 0 && peer.ipfs.id && peer.ipfs.addresses.length > 0)
  return `${peer.id} | ${peer.peerName}`
})
await example('pin', 'pin', async () => {
  const { cid } = await cluster.pin(FOO)
  assert.equal(cid, FOO)
  return cid
})
await example('pin', 'pin, with options', async () => {
  // A pin ends at a full second.
  const expireAt = new Date(Math.ceil(Date.now() / 1000) * 1000 + 86_400_000)
  const options = {
    name: 'foo.txt', metadata: { hello: 'world' }, expireAt, replicationFactorMin: 1, replicationFactorMax: 1
  }
  const pin = await cluster.pin(FOO, options)
  assert.deepEqual([pin.cid, pin.name, pin.metadata], [FOO, 'foo.txt', { hello: 'world' }])
  assert.equal(pin.expireAt.getTime(), expireAt.getTime())
  assert.deepEqual(pin.allocations, [self.id])
  return `${pin.name} on one peer until ${expireAt.toISOString()}`
})
await example('pin', 'pin, of a path', async () => {
  const pin = await cluster.pin(`/ipfs/${FOO}`)
  assert.equal(pin.cid, FOO)
  return pin.cid
})
await example('recover', 'recover', async () => {
  const { cid, peerMap } = await cluster.recover(FOO)
  assert.equal(cid, FOO)
  return peerMap[self.id].status
})
await example('status', 'status', async () => {
  return until('pinned', async () => {
    const status = await cluster.status(FOO)
    const here = status.peerMap[self.id]
    return { ok: here?.status === 'pinned' && here.timestamp > 0, status, found: `${self.id}: ${here?.status}` }
  })
})
await example('status', 'status, of this peer alone', async () => {
  const status = await cluster.status(FOO, { local: true })
  assert.deepEqual(Object.keys(status.peerMap), [self.id])
  return status.peerMap[self.id].peerName
})
await example('statusAll', 'statusAll', async () => {
  const statuses = await cluster.statusAll()
  assert.ok(statuses.some((status) => status.cid === FOO) && statuses.some((status) => status.cid === RAW_FOO))
  return `${statuses.length} CIDs`
})
await example('statusAll', 'statusAll, filtered by status', async () => {
  const statuses = await cluster.statusAll({ filter: ['pinning', 'pinned'] })
  assert.ok(statuses.some((status) => status.cid === FOO))
  // A stream without items has no body, as in the original; the library takes that for an error.
  const none = cluster.statusAll({ filter: ['pin_error'] })
  await assert.rejects(none, (error) => error.response.status === 204)
  return `${statuses.length} pinned; none failed: 204`
})
await example('statusAll', 'statusAll, filtered by CID', async () => {
  const statuses = await cluster.statusAll({ cids: [FOO] })
  assert.deepEqual(statuses.map((status) => status.cid), [FOO])
  return statuses[0].cid
})
await example('unpin', 'unpin', async () => {
  assert.equal((await cluster.unpin(FOO)).cid, FOO)
  await assert.rejects(cluster.allocation(FOO), (error) => error.response.status === 404)
  return 'gone'
})
await example('unpin', 'unpin, of a path', async () => {
  assert.equal((await cluster.unpin(`/ipfs/${RAW_FOO}`)).cid, RAW_FOO)
  await assert.rejects(cluster.unpin(RAW_FOO), (error) => error.response.status === 404)
  return 'gone'
})
assert.deepEqual([...untried], [], 'methods that were not tried')
