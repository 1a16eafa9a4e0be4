/* SPDX-License-Identifier: MIT */
/*
 * The account of remote faults. Entries are few (one a waiting thread), so looking one up is a walk
 * over an array; nothing allocates. Fault thread; readers see each figure whole.
 */
#include "engine/destination/account.h"
#include "engine/latency.h"
#include "engine/walk.h"

void
account_start(FaultAccount *account, const Faultline *faultline)
{
    unsigned count = 0;
    if (faultline->guest.vcpu_thread) {
        for (; count < FAULTLINE_VCPUS_MAX; count++) {
            pid_t thread = faultline->guest.vcpu_thread(faultline->opaque, count);
            if (!thread)
                break;
            account->threads[count] = (uint32_t)thread;
        }
    }
    account->vcpu_latency = g_new0(FaultlineLatency, count);
    __atomic_store_n(&account->count_vcpus, count, __ATOMIC_RELEASE);
}

void
account_clear(FaultAccount *account)
{
    __atomic_store_n(&account->count_vcpus, 0, __ATOMIC_RELEASE);
    g_clear_pointer(&account->vcpu_latency, g_free);
}

static int32_t
find_vcpu(const FaultAccount *account, uint32_t thread)
{
    for (unsigned i = 0; i < account->count_vcpus; i++)
        if (account->threads[i] == thread)
            return (int32_t)i;
    return -1;
}

static void
block_vcpu(FaultAccount *account, int32_t vcpu, uint64_t now_ns)
{
    if (vcpu < 0 || account->waits[vcpu]++)
        return;
    account->blocked_since_ns[vcpu] = now_ns;
    if (++account->count_blocked == account->count_vcpus)
        account->all_blocked_since_ns = now_ns;
}

static void
unblock_vcpu(FaultAccount *account, int32_t vcpu, uint64_t now_ns)
{
    if (vcpu < 0 || --account->waits[vcpu])
        return;
    progress_add(&account->vcpu_blocktime_ns[vcpu], now_ns - account->blocked_since_ns[vcpu]);
    if (account->count_blocked-- == account->count_vcpus)
        progress_add(&account->blocktime_ns, now_ns - account->all_blocked_since_ns);
}

void
account_begin(FaultAccount *account, unsigned block, uint64_t page, uint32_t thread,
              uint64_t now_ns)
{
    if (account->count == ACCOUNT_FAULTS_MAX)
        return;
    FaultEntry *entry = &account->entries[account->count];
    *entry = (FaultEntry){
        .block = block, .page = page, .vcpu = find_vcpu(account, thread), .since_ns = now_ns};
    progress_add(&account->count, 1);
    if (!account->oldest_since_ns)
        progress_set(&account->oldest_since_ns, now_ns);
    block_vcpu(account, entry->vcpu, now_ns);
}

static void
close_entry(FaultAccount *account, const FaultEntry *entry, uint64_t now_ns)
{
    uint64_t latency_ns = now_ns > entry->since_ns ? now_ns - entry->since_ns : 0;

    WALK_PROBE(page_account, entry->block, entry->page, latency_ns, entry->vcpu);
    latency_put(&account->latency, latency_ns);
    if (entry->vcpu >= 0) {
        progress_add(&account->vcpu_faults[entry->vcpu], 1);
        latency_put(&account->vcpu_latency[entry->vcpu], latency_ns);
    } else {
        progress_add(&account->non_vcpu_faults, 1);
        progress_add(&account->non_vcpu_total_ns, latency_ns);
    }
    unblock_vcpu(account, entry->vcpu, MAX(now_ns, entry->since_ns));
}

static uint64_t
find_oldest(const FaultAccount *account)
{
    uint64_t oldest_ns = account->count ? UINT64_MAX : 0;
    for (uint64_t i = 0; i < account->count; i++)
        oldest_ns = MIN(oldest_ns, account->entries[i].since_ns);
    return oldest_ns;
}

void
account_end(FaultAccount *account, unsigned block, uint64_t page, uint64_t now_ns)
{
    uint64_t count_before = account->count;

    for (uint64_t i = 0; i < account->count;) {
        FaultEntry *entry = &account->entries[i];
        if (entry->block != block || entry->page != page) {
            i++;
            continue;
        }
        close_entry(account, entry, now_ns);
        *entry = account->entries[account->count - 1];
        progress_set(&account->count, account->count - 1);
    }
    if (account->count != count_before)
        progress_set(&account->oldest_since_ns, find_oldest(account));
}

void
account_read(const FaultAccount *account, uint64_t now_ns, FaultlineInfo *ret_info)
{
    uint64_t oldest_ns = progress_get(&account->oldest_since_ns);

    ret_info->faults_in_flight = progress_get(&account->count);
    ret_info->longest_stall_ns = oldest_ns && now_ns > oldest_ns ? now_ns - oldest_ns : 0;
    ret_info->blocktime_ns = progress_get(&account->blocktime_ns);
    ret_info->count_vcpus = __atomic_load_n(&account->count_vcpus, __ATOMIC_ACQUIRE);
    for (unsigned i = 0; i < ret_info->count_vcpus; i++) {
        ret_info->vcpu_blocktime_ns[i] = progress_get(&account->vcpu_blocktime_ns[i]);
        ret_info->vcpu_faults[i] = progress_get(&account->vcpu_faults[i]);
    }
    latency_read(&account->latency, &ret_info->latency);
    ret_info->non_vcpu_faults = progress_get(&account->non_vcpu_faults);
    ret_info->non_vcpu_total_ns = progress_get(&account->non_vcpu_total_ns);
}

bool
account_read_vcpu(const FaultAccount *account, unsigned vcpu, FaultlineLatency *ret_latency)
{
    if (vcpu >= __atomic_load_n(&account->count_vcpus, __ATOMIC_ACQUIRE))
        return false;
    latency_read(&account->vcpu_latency[vcpu], ret_latency);
    return true;
}
