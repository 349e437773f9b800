#include "contextem/parallel.hpp"

#include <atomic>
#include <stdexcept>

#include "check.hpp"

using namespace contextem;

int main() {
    // every item once, ranges beginning at multiples of the grain
    for (Index count : {Index(0), Index(1), Index(11), Index(12), Index(100), Index(1000)}) {
        for (int threads : {0, 1, 2, 3, 8}) {
            std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
            std::atomic<bool> aligned{true};
            parallel_for(count, 12, threads, [&](Index begin, Index end) {
                aligned = aligned && begin % 12 == 0;
                for (Index i = begin; i < end; ++i) {
                    ++visits[static_cast<std::size_t>(i)];
                }
            });
            CHECK(aligned);
            for (const std::atomic<int>& visit : visits) {
                CHECK(visit == 1);
            }
        }
    }

    // a limit stands in for all cores, in the thread that set it
    thread_limit() = 3;
    CHECK(thread_count(100, 1, 0) == 3);
    CHECK(thread_count(100, 1, 5) == 5);
    CHECK(thread_count(2, 1, 0) == 2);
    int elsewhere = -1;
    std::thread([&] { elsewhere = thread_limit(); }).join();
    CHECK(elsewhere == 0);
    thread_limit() = 0;

    // an exception of any thread reaches the caller
    bool caught = false;
    try {
        parallel_for(100, 1, 4, [](Index begin, Index) {
            if (begin > 0) {
                throw std::runtime_error("on purpose");
            }
        });
    } catch (const std::runtime_error&) {
        caught = true;
    }
    CHECK(caught);
    return failures();
}
