// Splits a range over threads. Every item is computed alike wherever it falls, so results do not depend on the split.
#pragma once

#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

#include "contextem/view.hpp"

namespace contextem {

// What n_threads = 0 stands for where the calling thread shares the cores with others; 0: all cores.
inline int& thread_limit() {
    thread_local int limit = 0;
    return limit;
}

// Number of threads for `count` items: n_threads (0: thread_limit()), but no more than one per `grain` items.
inline Index thread_count(Index count, Index grain, int n_threads) {
    const int wanted = n_threads > 0 ? n_threads : thread_limit();
    const Index available = wanted > 0 ? wanted : static_cast<Index>(std::max(1u, std::thread::hardware_concurrency()));
    return std::max<Index>(1, std::min(available, count / std::max<Index>(1, grain)));
}

// Calls work(begin, end) on disjoint ranges that cover [0, count); ranges begin at multiples of `grain`.
// The first exception of any thread is rethrown here.
template <class Work>
void parallel_for(Index count, Index grain, int n_threads, const Work& work) {
    const Index threads = thread_count(count, grain, n_threads);
    if (threads == 1) {
        work(Index(0), count);
        return;
    }
    const Index grains = (count + grain - 1) / grain;
    std::vector<std::exception_ptr> errors(static_cast<std::size_t>(threads));
    const auto run = [&](Index thread) {
        try {
            const Index begin = grains * thread / threads * grain;
            const Index end = std::min(count, grains * (thread + 1) / threads * grain);
            work(begin, end);
        } catch (...) {
            errors[static_cast<std::size_t>(thread)] = std::current_exception();
        }
    };
    std::vector<std::thread> pool;
    pool.reserve(static_cast<std::size_t>(threads - 1));
    Index started = 1;
    try {
        for (; started < threads; ++started) {
            pool.emplace_back(run, started);
        }
    } catch (...) {  // NOLINT(bugprone-empty-catch)
        // no more threads to be had: the remaining ranges run here
    }
    run(0);
    for (Index thread = started; thread < threads; ++thread) {
        run(thread);
    }
    for (std::thread& thread : pool) {
        thread.join();
    }
    for (const std::exception_ptr& error : errors) {
        if (error) {
            std::rethrow_exception(error);
        }
    }
}

}  // namespace contextem
