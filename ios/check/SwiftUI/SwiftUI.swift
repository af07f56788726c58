@_exported import Foundation

/// What the sample uses of Apple's module `SwiftUI`, for a compiler without it. Views are never drawn: `Screen` reads what
/// they show, and presses what is on them.
@MainActor public protocol View {
    associatedtype Body: View
    @ViewBuilder var body: Body { get }
}

extension Never: View {
    public var body: Never { return bodyless() }
}

private func bodyless() -> Never { fatalError("a view of the system's has no body") }

/// A view of the system's.
@MainActor protocol Primitive {
    /// What is in it, in order.
    var parts: [Part] { get }
}

/// What a screen is made of.
@MainActor enum Part {
    case text(String)
    case control(String, isEnabled: Bool, () -> Void)
    case view(any View)
}

/// Tests: what a person sees and does.
@MainActor public struct Screen {
    private let view: any View

    public init(_ view: any View) { self.view = view }

    /// Every text, controls' labels among them, from the top down.
    public var texts: [String] {
        Screen.flat(view).compactMap {
            switch $0 {
            case .text(let text), .control(let text, _, _): return text
            case .view: return nil
            }
        }
    }

    /// Presses the button, or turns the switch, of that label; false if there is none that can be pressed.
    public func press(_ label: String) -> Bool {
        for case .control(label, true, let action) in Screen.flat(view) {
            action()
            return true
        }
        return false
    }

    private static func flat(_ view: any View) -> [Part] {
        guard let primitive = view as? any Primitive else { return flat(body(view)) }
        return primitive.parts.flatMap { part in
            if case .view(let inner) = part { return flat(inner) }
            return [part]
        }
    }

    private static func body<V: View>(_ view: V) -> any View { view.body }
}

public struct Group: View, Primitive {
    let parts: [Part]
    public var body: Never { return bodyless() }

    init(_ views: [any View]) { parts = views.map(Part.view) }
}

@resultBuilder @MainActor public enum ViewBuilder {
    public static func buildExpression<V: View>(_ view: V) -> V { view }
    public static func buildBlock(_ views: any View...) -> Group { Group(views) }
    public static func buildOptional(_ view: Group?) -> Group { view ?? Group([]) }
    public static func buildEither(first view: Group) -> Group { view }
    public static func buildEither(second view: Group) -> Group { view }
}

public struct Text: View, Primitive {
    let parts: [Part]
    public var body: Never { return bodyless() }

    public init(_ text: String) { parts = [.text(text)] }
}

public struct Button: View, Primitive {
    let parts: [Part]
    public var body: Never { return bodyless() }

    public init(_ label: String, action: @escaping @MainActor () -> Void) {
        parts = [.control(label, isEnabled: true, action)]
    }
}

public struct Toggle: View, Primitive {
    let parts: [Part]
    public var body: Never { return bodyless() }

    public init(_ label: String, isOn: Binding<Bool>) {
        parts = [.control(label, isEnabled: true) { isOn.wrappedValue.toggle() }]
    }
}

public struct TextField: View, Primitive {
    private let text: Binding<String>
    var parts: [Part] { [.text(text.wrappedValue)] }
    public var body: Never { return bodyless() }

    public init(_ title: String, text: Binding<String>) { self.text = text }
}

public struct Form<Content: View>: View, Primitive {
    let parts: [Part]
    public var body: Never { return bodyless() }

    public init(@ViewBuilder content: () -> Content) { parts = [.view(content())] }
}

public struct Section<Content: View>: View, Primitive {
    let parts: [Part]
    public var body: Never { return bodyless() }

    public init(_ title: String, @ViewBuilder content: () -> Content) { parts = [.text(title), .view(content())] }
}

public struct ForEach<Data: RandomAccessCollection, ID: Hashable, Content: View>: View, Primitive {
    let parts: [Part]
    public var body: Never { return bodyless() }

    public init(_ data: Data, id: KeyPath<Data.Element, ID>, @ViewBuilder content: (Data.Element) -> Content) {
        precondition(Set(data.map { $0[keyPath: id] }).count == data.count, "two rows of one id")
        parts = data.map { .view(content($0)) }
    }
}

/// A view with what a modifier adds, of which only `disabled` shows.
public struct Modified: View, Primitive {
    let parts: [Part]
    public var body: Never { return bodyless() }
}

public struct Color: Sendable {
    public static let secondary = Color()
}

public struct Font: Sendable {
    public static let caption = Font()
}

extension View {
    public func disabled(_ disabled: Bool) -> some View {
        let parts = (self as? any Primitive)?.parts ?? [.view(self)]
        return Modified(
            parts: parts.map { part in
                guard disabled, case .control(let label, _, let action) = part else { return part }
                return .control(label, isEnabled: false, action)
            })
    }

    public func disableAutocorrection(_ disable: Bool?) -> some View { Modified(parts: [.view(self)]) }
    public func foregroundColor(_ color: Color?) -> some View { Modified(parts: [.view(self)]) }
    public func font(_ font: Font?) -> some View { Modified(parts: [.view(self)]) }
    public func task(_ action: @escaping @MainActor @Sendable () async -> Void) -> some View {
        Modified(parts: [.view(self)])
    }
    public func onOpenURL(perform action: @escaping (URL) -> Void) -> some View { Modified(parts: [.view(self)]) }
    public func onChange<V: Equatable>(of value: V, perform action: @escaping (V) -> Void) -> some View {
        Modified(parts: [.view(self)])
    }
}

@MainActor public protocol Scene {}

public struct WindowGroup<Content: View>: Scene {
    public init(@ViewBuilder content: () -> Content) { _ = content() }
}

@MainActor public protocol App {
    associatedtype Body: Scene
    var body: Body { get }
    init()
}

extension App {
    /// There is no screen: the views are made once, and that is all.
    public static func main() { _ = Self().body }
}

public protocol ObservableObject: AnyObject {}

@propertyWrapper public struct Published<Value> {
    public var wrappedValue: Value

    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }
}

@propertyWrapper @MainActor public struct Binding<Value> {
    private let get: @MainActor () -> Value
    private let set: @MainActor (Value) -> Void

    public init(get: @escaping @MainActor () -> Value, set: @escaping @MainActor (Value) -> Void) {
        self.get = get
        self.set = set
    }

    public var wrappedValue: Value {
        get { get() }
        nonmutating set { set(newValue) }
    }
}

@propertyWrapper @MainActor public struct ObservedObject<Object: ObservableObject> {
    @dynamicMemberLookup @MainActor public struct Wrapper {
        let object: Object

        public subscript<Value>(dynamicMember path: ReferenceWritableKeyPath<Object, Value>) -> Binding<Value> {
            Binding(get: { object[keyPath: path] }, set: { object[keyPath: path] = $0 })
        }
    }

    public let wrappedValue: Object
    public var projectedValue: Wrapper { Wrapper(object: wrappedValue) }

    public init(wrappedValue: Object) { self.wrappedValue = wrappedValue }
}

@propertyWrapper @MainActor public struct StateObject<Object: ObservableObject> {
    public let wrappedValue: Object

    public init(wrappedValue make: @autoclosure @escaping () -> Object) { wrappedValue = make() }
}
