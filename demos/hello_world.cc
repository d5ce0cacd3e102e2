#include <iostream>
#include <stdexcept>
#include <string>
#include <thread>

int main() {
    std::string text;
    std::thread writer([&] { text = "Hello World!"; });
    writer.join();
    try {
        throw std::runtime_error(text);
    } catch (const std::exception &caught) {
        std::cout << caught.what() << std::endl;
    }
}
